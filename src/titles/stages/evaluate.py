"""Stage evaluate: every network and their average on the test split, which nothing else reads."""

from titles.data import inputs
from titles.data.contract import LABELS, METRICS, MODELS, PLOTS, PREDICTIONS, PREPARED, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.files import write_json
from titles.data.outcomes import Outcomes
from titles.data.vocabulary import Vocabulary, read_labels
from titles.evaluation import model_card, predictions, tables
from titles.models.parts import saved
from titles.models.parts.calibration import divide_logits
from titles.models.parts.inference import evaluate, set_up
from titles.models.registry import CLASSIFIERS, NETWORKS, load_params
from titles.params import note_without_effect
from titles.stages import entry_point


@entry_point
def main() -> None:
    params = load_params()
    settings, seed = params.evaluate, params.seed
    device = set_up(params.compute, seed)
    test, validation = (EncodedTitles.open(PREPARED / split) for split in ("test", "validation"))
    if len(test) == 0:
        raise ValueError("the test split is empty: no category has two rows")
    labels, words = read_labels(LABELS), Vocabulary.read(VOCABULARY)
    if settings.confused_categories > len(labels):
        note_without_effect("evaluate", {"confused_categories": f"there are {len(labels)} categories"})
    models = {name: saved.read(MODELS / name, NETWORKS) for name in NETWORKS}
    for name, model in models.items():
        if model.labels != labels or model.vocabulary != words:
            raise ValueError(f"models/{name} was not trained on data/prepared as it is now: `dvc repro`")
    networks = [model.network.to(device) for model in models.values()]
    weight_M = saved.weights(list(models.values()))

    def outcomes_of(titles: EncodedTitles) -> dict[str, Outcomes]:
        found = evaluate(networks, titles, device, weight_M=weight_M)
        return dict(zip(CLASSIFIERS, found, strict=True))

    outcomes, on_validation = outcomes_of(test), outcomes_of(validation)
    for model in models.values():  # as they were before calibration
        divide_logits(model.network, 1 / model.temperature)
    as_trained = dict(zip(NETWORKS, evaluate(networks, test, device), strict=True))
    details = {
        "models": tables.measures(outcomes, as_trained, on_validation, settings, seed),
        "pairs": tables.pairs(outcomes, settings, seed),
        "groups": tables.by_group(outcomes, test),
    }
    inputs.check()
    tables.write_tables(outcomes, labels, settings, PLOTS / "evaluate")
    predictions.write(PREDICTIONS, test, words, labels, outcomes)
    model_card.write(MODELS / "card.md", models, details, params)
    write_json(METRICS / "details.json", details)
    write_json(METRICS / "evaluate.json", tables.headline(details["models"]))
    print(f"evaluate: {len(test)} test titles, {len(labels)} categories")
    print(tables.described(details["models"], settings.target_precision))


if __name__ == "__main__":
    main()
