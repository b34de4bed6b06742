"""Stage evaluate: both networks and their average on the test split, which nothing else reads."""

from titles.data.contract import (
    LABELS,
    METRICS,
    MODELS,
    PLOTS,
    PREDICTIONS,
    PREPARED,
    VOCABULARY,
    write_json,
)
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import Outcomes
from titles.data.vocabulary import Vocabulary, read_labels
from titles.evaluation import model_card, predictions
from titles.evaluation.calibration import divide_logits
from titles.evaluation.tables import by_group, described, headline, write_tables
from titles.models.cnn import TitleCNN
from titles.models.mlp import TitleMLP
from titles.models.parts import saved
from titles.params import load_params
from titles.stages import entry_point
from titles.training.trainer import evaluate, set_up


@entry_point
def main() -> None:
    params = load_params()
    device = set_up(params.compute, params.seed)
    titles = EncodedTitles.open(PREPARED / "test")
    if len(titles) == 0:
        raise ValueError("the test split is empty: no category has two rows")
    labels, words = read_labels(LABELS), Vocabulary.read(VOCABULARY)
    architectures = {"cnn": TitleCNN, "mlp": TitleMLP}
    models = {name: saved.read(MODELS / name, architectures) for name in architectures}
    for name, model in models.items():
        if model.labels != labels or model.vocabulary != words:
            raise ValueError(f"models/{name} was trained on other data than data/prepared: `dvc repro`")
    networks = [model.network.to(device) for model in models.values()]
    weight_M = saved.weights(list(models.values()))

    def said_of(titles: EncodedTitles) -> dict[str, Outcomes]:
        found = evaluate(networks, titles, device, weight_M=weight_M)
        return dict(zip([*models, "average"], found, strict=True))

    outcomes, validation = said_of(titles), said_of(EncodedTitles.open(PREPARED / "validation"))
    for model in models.values():  # calibration undone
        divide_logits(model.network, 1 / model.temperature)
    as_trained = said_of(titles)
    scores = headline(outcomes, as_trained, validation, params.evaluate, params.seed)
    groups = by_group(outcomes, titles)
    write_tables(outcomes, labels, params.evaluate, PLOTS / "evaluate")
    predictions.write(PREDICTIONS, titles, words, labels, outcomes)
    model_card.write(MODELS / "card.md", models, scores, groups, params)
    write_json(METRICS / "groups.json", groups)
    write_json(METRICS / "evaluate.json", scores)
    print(f"evaluate: {len(titles)} test titles, {len(labels)} categories")
    print(described(scores, params.evaluate.target_precision))


if __name__ == "__main__":
    main()
