"""Stage evaluate: both networks and their average on the test split, which nothing else reads."""

from titles import predictions
from titles.contract import (
    LABELS,
    METRICS,
    MODELS,
    PLOTS,
    PREDICTIONS,
    PREPARED,
    VOCABULARY,
    replaced_folder,
    write_json,
)
from titles.data import EncodedTitles
from titles.evaluation import by_group, headline, write_tables
from titles.models import saved
from titles.models.cnn import TitleCNN
from titles.models.mlp import TitleMLP
from titles.params import load_params
from titles.stages import entry_point
from titles.training import evaluate, set_up
from titles.vocabulary import Vocabulary, read_labels


@entry_point
def main() -> None:
    params = load_params()
    device = set_up(params.compute, params.seed)
    titles = EncodedTitles.open(PREPARED / "test")
    if len(titles) == 0:
        raise ValueError("the test split is empty: no category has two rows")
    labels, words = read_labels(LABELS), Vocabulary.read(VOCABULARY)
    architectures = {"cnn": TitleCNN, "mlp": TitleMLP}
    networks = []
    for name in architectures:
        model = saved.read(MODELS / name, architectures)
        if model.labels != labels or model.vocabulary != words:
            raise ValueError(f"models/{name} was trained on other data than data/prepared: `dvc repro`")
        networks.append(model.network.to(device))
    found = evaluate(networks, titles, device)
    outcomes = dict(zip([*architectures, "average"], found, strict=True))
    scores = headline(outcomes, params.evaluate, params.seed)
    with replaced_folder(PLOTS / "evaluate") as folder:
        write_tables(outcomes, labels, params.evaluate, folder)
    predictions.write(PREDICTIONS, titles, words, labels, outcomes)
    write_json(METRICS / "groups.json", by_group(outcomes, titles))
    write_json(METRICS / "evaluate.json", scores)
    print(f"evaluate: {len(titles)} test titles, {len(labels)} categories")
    for name in outcomes:
        score = scores[name]
        print(
            f"{name:>8}: balanced accuracy {score['balanced_accuracy']:.4f} "
            f"[{score['balanced_accuracy_low']:.4f}, {score['balanced_accuracy_high']:.4f}], "
            f"accuracy {score['accuracy']:.4f}, top-5 {score['top_5']:.4f}, loss {score['loss']:.4f}"
        )


if __name__ == "__main__":
    main()
