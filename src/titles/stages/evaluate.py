"""Stage evaluate: every network and their average on the test split, which nothing else reads."""

import numpy as np

from titles.data import inputs
from titles.data.announcement import note_without_effect
from titles.data.contract import METRICS, MODELS, PLOTS, PREDICTIONS, PREPARED, SETS_FILE, SPLITS
from titles.data.encoded import EncodedTitles
from titles.data.files import write_json
from titles.evaluation import model_card, predictions, sets, tables
from titles.evaluation.classifiers import Classifiers
from titles.models.parts.inference import set_up
from titles.models.registry import CLASSIFIERS, load_params
from titles.stages import entry_point


@entry_point
def main() -> None:
    params = load_params()
    settings, seed = params.evaluate, params.seed
    device = set_up(params.compute, seed)
    train, validation, calibration, test = (EncodedTitles.open(PREPARED / split) for split in SPLITS)
    if len(test) == 0:
        raise ValueError("the test split is empty: no category has two rows")
    classifiers = Classifiers(MODELS, device)
    labels = classifiers.labels
    if settings.confused_categories > len(labels):
        note_without_effect("evaluate", {"confused_categories": f"there are {len(labels)} categories"})
    train_C = np.bincount(train.labels, minlength=len(labels))
    scored = sets.Scored(CLASSIFIERS, calibration)
    on_calibration = classifiers.outcomes(calibration, scored)
    made = sets.calibrated(scored, train_C, [MODELS / name for name in classifiers.models])
    in_sets = sets.Scored(CLASSIFIERS, test, sets.reported(made))
    outcomes, on_validation = classifiers.outcomes(test, in_sets), classifiers.outcomes(validation)
    as_trained = classifiers.as_trained(test)
    unseen = on_calibration if len(calibration) else on_validation
    details = {
        "models": tables.measures(outcomes, as_trained, on_validation, unseen, settings, seed),
        "pairs": tables.pairs(outcomes, settings, seed),
        "groups": tables.by_group(outcomes, test),
        "sets": sets.measures(in_sets, train_C),
    }
    inputs.check()
    tables.write_tables(outcomes, labels, settings, PLOTS / "evaluate", sets.by_tenth(in_sets, train_C))
    predictions.write(PREDICTIONS, test, classifiers.words, labels, outcomes)
    model_card.write(MODELS / "card.md", classifiers.models, details, params)
    made.write(MODELS / SETS_FILE)
    write_json(METRICS / "details.json", details)
    write_json(METRICS / "evaluate.json", tables.headline(details["models"]))
    print(f"evaluate: {len(test)} test titles, {len(labels)} categories")
    print(tables.described(details["models"], settings.target_precision))


if __name__ == "__main__":
    main()
