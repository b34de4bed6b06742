"""Stage prepare: listing files to encoded splits."""

from titles.data import inputs
from titles.data.contract import METRICS, PREPARED
from titles.data.files import atomic_folder, write_json
from titles.models.registry import load_params
from titles.prepare.preparation import prepare
from titles.stages import entry_point
from titles.tracking.tracked import note_inputs


@entry_point
def main() -> None:
    params = load_params()
    note_inputs(params.prepare)
    with atomic_folder(PREPARED) as folder:
        metrics = prepare(params.prepare, folder)
        inputs.check()
    write_json(METRICS / "prepare.json", metrics)
    rows = metrics["rows"]
    print(
        f"prepare: {rows['read']} rows read; train {rows['train']}, validation {rows['validation']}, "
        f"calibration {rows['calibration']}, test {rows['test']}; {metrics['categories']} categories, "
        f"{metrics['vocabulary']} words; "
        f"not used: {metrics['rejected'] or 'none'}, see {PREPARED}/rejected.csv"
    )


if __name__ == "__main__":
    main()
