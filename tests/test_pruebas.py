"""Files of experiments, and what `dvc exp run -S` makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from titles.experiments.suite.plan import Plan, read_plan, wanted
from titles.experiments.suite.runner import default_jobs
from titles.experiments.suite.state import differing_params
from titles.experiments.suite.table import caveat, shown, write_markdown
from titles.models.registry import load_params
from titles.tracking.provenance import flat

ROOT = Path(__file__).parent.parent
COURSE = ROOT / "experiments/course.yaml"
BASE: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def plan(text: str, folder: Path) -> Plan:
    file = folder / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    return read_plan(file)


def test_the_courses_experiments_are_the_published_ones() -> None:
    course = read_plan(COURSE)
    published = {
        name: (p.published.balanced_accuracy, p.published.loss) if p.published else None
        for name, p in course.experiments.items()
    }
    assert published == {
        "cnn-1": (0.367, 5.618),
        "cnn-2": (0.349, 5.616),
        "cnn-3": (0.732, 5.481),
        "cnn-4": None,
        "mlp-1": (0.446, 2.778),
        "mlp-2": (0.537, 2.281),
        "mlp-3": (0.474, 2.639),
    }
    params = {one.name: one.params for one in wanted(course, COURSE, BASE)}
    assert {
        name: (p.cnn.epochs, p.cnn.filter_count, p.cnn.freeze_embeddings)
        for name, p in params.items()
        if name.startswith("cnn")
    } == {
        "cnn-1": (3, 100, True),
        "cnn-2": (5, 150, True),
        "cnn-3": (3, 100, False),
        "cnn-4": (3, 100, "partial"),
    }
    assert {
        name: (p.mlp.epochs, p.mlp.hidden_layers, p.mlp.freeze_embeddings)
        for name, p in params.items()
        if name.startswith("mlp")
    } == {
        "mlp-1": (3, (256, 128), True),
        "mlp-2": (5, (256, 256), True),
        "mlp-3": (10, (256, 128), True),
    }


def test_the_courses_experiments_share_the_network_that_they_are_not_about() -> None:
    course = read_plan(COURSE)
    params = {one.name: one.params for one in wanted(course, COURSE, BASE)}
    assert len({p.mlp for name, p in params.items() if name.startswith("cnn")}) == 1
    assert len({p.cnn for name, p in params.items() if name.startswith("mlp")}) == 1
    assert len({(p.prepare, p.embed, p.seed, p.compute) for p in params.values()}) == 1
    for name, case in course.experiments.items():
        assert set(case.settings) == {case.network}, name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("about: x\nexperiments: {}", "experiments: Dictionary should have at least 1 item"),
        (
            "about: x\nexperiments: {a: {network: rnn}}",
            "experiments.a.network: Value error, must be one of cnn, mlp, average",
        ),
        ("about: x\nexperiments: {a b: {network: cnn}}", "experiments.a b.[key]"),
        ("about: x\nexperiment: {}\nexperiments: {a: {network: cnn}}", "experiment: Extra inputs"),
        (
            "about: x\nexperiments:\n  a: {network: cnn}\n  a: {network: mlp}",
            "line 4: the key 'a' stands twice, first in line 3",
        ),
        ("about: x\nexperiments: {a: {network: cnn, published: {loss: 1}}}", "balanced_accuracy: Field"),
        ("- a", "file: Input should be"),
        ("a: [", "while parsing"),
        ("", "about: Field required"),
        ("3", "Invalid loaded object type"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"plan\.yaml is not a file of experiments") as caught:
        plan(text, tmp_path)
    assert told in str(caught.value)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nope\.yaml is missing"):
        read_plan(tmp_path / "nope.yaml")


def test_wrong_settings_of_all_experiments_are_told_at_once(tmp_path: Path) -> None:
    text = """
about: x
experiments:
  a: {network: cnn, settings: {cnn: {epoch: 3}}}
  b: {network: mlp, settings: {mlp: {dropout: 2}, seed: -1}}
"""
    with pytest.raises(ValueError, match="did you mean epochs") as caught:
        wanted(plan(text, tmp_path), Path("plan.yaml"), BASE)
    for words in ("plan.yaml, a,", "cnn.epoch", "plan.yaml, b,", "mlp.dropout", "seed"):
        assert words in str(caught.value)


def test_the_last_setting_counts_and_neighbours_stay(tmp_path: Path) -> None:
    text = """
about: x
settings: {seed: 1, cnn: {epochs: 2, dropout: 0.25}}
experiments: {a: {network: cnn, settings: {cnn: {epochs: 4}}}, b: {network: mlp}}
"""
    base = yaml.safe_load(yaml.safe_dump(BASE))
    a, b = wanted(plan(text, tmp_path), Path("plan.yaml"), base)
    assert (a.params.seed, a.params.cnn.epochs, a.params.cnn.dropout) == (1, 4, 0.25)
    assert (b.params.seed, b.params.cnn.epochs, b.params.cnn.dropout) == (1, 2, 0.25)
    assert a.params.mlp == b.params.mlp
    assert sorted(a.overrides) == ["cnn.dropout=0.25", "cnn.epochs=4", "seed=1"]
    assert base == BASE


def test_dvc_reads_overrides_as_they_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.utils.hydra import apply_overrides

    settings = {
        "seed": 7,
        "prepare": {"source": 'data/raw/it\'s a, b=[c] "d" ñ.csv', "strip_accents": False},
        "embed": {"method": "pretrained", "pretrained": "2020", "dimension": 300},
        "cnn": {"filter_lengths": [2, 3], "freeze_embeddings": "partial", "weight_decay": 1e-5},
        "mlp": {"learning_rate": "3e-4", "freeze_embeddings": True, "schedule": "constant"},
    }
    text = yaml.safe_dump({"about": "x", "experiments": {"a": {"network": "cnn", "settings": settings}}})
    (one,) = wanted(plan(text, tmp_path), Path("plan.yaml"), BASE)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_params() != one.params
    apply_overrides("params.yaml", one.overrides)
    assert load_params() == one.params


def test_a_difference_is_told_by_its_parameter(tmp_path: Path) -> None:
    text = "about: x\nexperiments: {a: {network: cnn, settings: {seed: 1, cnn: {epochs: 3}}}}"
    (ours,) = wanted(plan(text, tmp_path), Path("plan.yaml"), BASE)
    theirs = flat(BASE) | {"seed": 1, "cnn.epochs": 5}
    assert differing_params(ours.params, theirs) == "cnn.epochs 5, not 3"
    assert differing_params(ours.params, theirs | {"cnn.epochs": 3.0}) == ""
    # Of an older version, which had another parameter.
    del theirs["cnn.patience"]
    told = differing_params(ours.params, theirs | {"cnn.epochs": 3, "cnn.calm": 2})
    assert told == f"cnn.patience None, not {BASE['cnn']['patience']}, cnn.calm 2, not None"


def test_runs_at_once_leave_each_its_threads() -> None:
    cores = default_jobs(1)
    assert default_jobs(cores) == 1
    assert default_jobs(10 * cores) == 1


def scores(value: float) -> dict[str, dict[str, float]]:
    names = ("balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "loss")
    return {n: dict.fromkeys(names, value + i / 10) for i, n in enumerate(("cnn", "mlp", "average"))}


def test_results_stand_beside_what_is_published(tmp_path: Path) -> None:
    text = """
about: Two
published_on: their data
settings: {seed: 3}
experiments:
  a: {network: cnn, settings: {cnn: {epochs: 3}}, published: {balanced_accuracy: 0.4567, loss: 2}}
  b: {network: mlp}
"""
    two = plan(text, tmp_path)
    measures = {"a": scores(0.1), "b": scores(0.5)}
    first, second = shown(two, measures).splitlines()[2:]
    assert " ".join(first.split()) == "a cnn cnn.epochs 3 0.100 0.100 .. 0.100 0.100 0.457 2.000"
    assert " ".join(second.split()) == "b mlp 0.600 0.600 .. 0.600 0.600 - -"
    assert "do not compare one to one" in caveat(two)
    write_markdown(two, measures, "0123456789", tmp_path / "docs/two.md")
    written = (tmp_path / "docs/two.md").read_text(encoding="utf-8")
    assert written.startswith("# Two\n")
    assert "| a            | cnn" in written
    assert "their data" in written
    assert "`seed` 3" in written
    assert "Commit 0123456." in written


def test_a_plan_without_published_figures_has_no_columns_for_them(tmp_path: Path) -> None:
    one = plan("about: x\nexperiments: {a: {network: average}}", tmp_path)
    assert "published" not in shown(one, {"a": scores(0.1)})
    assert caveat(one) == ""
