"""What versions before wrote is read as what it meant then."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from titles.cli import main
from titles.data.contract import METRICS, PREDICTIONS
from titles.doctor import probes
from titles.experiments import commands
from titles.experiments.older import upgraded
from titles.experiments.results import results_at
from titles.experiments.store import decides_split, find, head, unknown
from titles.models.registry import parse_params
from titles.tracking import mlflow
from titles.tracking.provenance import flat

ROOT = Path(__file__).parent.parent
# The parameters of the first version, and those of the last before keys were renamed, as they were.
FIRST = """\
seed: 2019
compute: {device: auto, threads: 2}
prepare: {source: data/raw/sample.csv.gz, language: all, strip_accents: true, digits: keep,
  drop_seller_noise: true, max_title_chars: 1000, max_words: 32, holdout_quality: reliable,
  validation_fraction: 0.1, test_fraction: 0.1, min_rows: 4, min_count: 2, max_vocabulary: 200000}
embed: {method: word2vec, pretrained: data/pretrained/none, dimension: 100, epochs: 15, window: 5,
  negative: 5, subword_min: 3, subword_max: 6, workers: 1}
cnn: {filter_lengths: [2, 3, 4], filter_count: 100, fc_size: 128, dropout: 0.3, freeze_embeddings: false,
  epochs: 8, batch_size: 256, learning_rate: 2e-3, weight_decay: 1e-5, class_weighting: sqrt,
  patience: 3}
mlp: {hidden_layers: [512], dropout: 0.5, freeze_embeddings: false, epochs: 12, batch_size: 256,
  learning_rate: 2e-3, weight_decay: 1e-5, class_weighting: sqrt, patience: 3}
evaluate: {bootstrap_samples: 2000, calibration_bins: 15, confused_categories: 15}
"""
BEFORE_RENAMING = """\
seed: 4
prepare: {source: a.csv, test_fraction: 0.1, reference: data/pretrained/none}
cnn: {fc_size: 512, epochs: 12, batch_size: 1024, min_steps: 200, word_dropout: 0.1, robustness: 0.3}
mlp: {leading_words: 2, hidden_layers: [512], batch_size: 512, min_steps: 100, robustness: 0.2}
evaluate: {bootstrap_samples: 2000, wanted_precision: 0.98}
"""


def of(text: str) -> dict[str, Any]:
    return upgraded(flat(yaml.safe_load(text)))


def test_what_the_first_version_lacked_has_the_value_that_it_had_in_effect() -> None:
    given, found = flat(yaml.safe_load(FIRST)), of(FIRST)
    assert {name: found[name] for name in given} == given
    assert {name: value for name, value in found.items() if name not in given} == {
        "prepare.split_seed": "2019, by words",
        "prepare.reference": "data/pretrained/none",
        "prepare.corrections": "data/corrections/none",
        "prepare.calibration_share": 0,
        "compute.portable": False,
        "cnn.min_steps": None,
        "mlp.min_steps": None,
        "mlp.leading_words": 0,
    } | {
        f"{network}.{key}": value
        for network in ("cnn", "mlp")
        for key, value in (
            ("word_dropout", 0),
            ("heads", 1),
            ("subword_buckets", 0),
            ("schedule", "constant"),
            ("logit_adjustment", 0),
            ("label_smoothing", 0),
            ("gce_q", 0),
            ("set_aside_below", 0),
            ("precision", "float32"),
            ("saved_weights", "float32"),
        )
    }


def test_renamed_parameters_have_their_present_names() -> None:
    found = of(BEFORE_RENAMING)
    assert (found["cnn.gce_q"], found["mlp.gce_q"]) == (0.3, 0.2)
    assert found["evaluate.target_precision"] == 0.98
    assert not [name for name in found if "robustness" in name or "wanted" in name]
    assert (found["prepare.split_seed"], found["cnn.word_dropout"]) == ("4, by words", 0.1)
    # A number was a limit beside the steps: 1024, as for `auto` now, or one that cannot be given now.
    assert (found["cnn.batch_size"], found["cnn.min_steps"]) == ("auto", 200)
    assert (found["mlp.batch_size"], found["mlp.min_steps"]) == ("at most 512", 100)


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        ({"batch_size": 512}, (512, None)),
        ({"batch_size": 512, "min_steps": 1}, (512, None)),
        ({"min_steps": 200, "batch_size": 1024}, ("auto", 200)),
        ({"batch_size": 1024, "min_steps": 20}, ("auto", 20)),
        ({"batch_size": 256, "min_steps": 20}, ("at most 256", 20)),
        ({"batch_size": "auto", "min_steps": 30}, ("auto", 30)),
        ({"batch_size": 512, "min_steps": None}, (512, None)),
    ],
)
def test_a_batch_size_means_what_it_meant_beside_the_steps(section: Any, meant: object) -> None:
    found = of(yaml.safe_dump({"gru": section}))
    assert (found["gru.batch_size"], found["gru.min_steps"]) == meant


def test_parameters_of_this_version_stay_as_they_are() -> None:
    values = flat(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    present = values | {"prepare.split_seed": 5, "cnn.label_smoothing": 0.7}
    assert upgraded(present) == present
    for text in (FIRST, BEFORE_RENAMING):
        assert upgraded(of(text)) == of(text)


def test_a_file_of_ones_own_is_held_to_this_version() -> None:
    with pytest.raises(ValueError, match="problem"):
        parse_params(yaml.safe_load(FIRST))
    with pytest.raises(ValueError, match=r"cnn\.robustness: is called gce_q now"):
        parse_params(yaml.safe_load(BEFORE_RENAMING))


def test_what_a_revision_lacks_is_named_and_a_section_once() -> None:
    told = unknown({"new": {"seed": 1, "cnn.a": 1, "gru.a": 1, "gru.b": 2}, "old": {"cnn.b": 1}})
    assert told == [
        "new has no cnn.b: its version did not know them",
        "old has no seed, cnn.a, gru: its version did not know them",
    ]
    assert unknown({"one": {"a": 1}, "other": {"a": 2}}) == []


def test_a_parameter_that_changes_no_result_is_not_missed() -> None:
    now = flat(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    (line,) = unknown({"now": now, "first": of(FIRST)})
    assert "evaluate.target_precision" in line
    assert "drift" not in line
    assert (
        unknown({"now": {"embed.workers": 1, "compute.threads": 2, "seed": 1}, "old": {"seed": 1}}) == []
    )


def test_the_words_decided_the_split_of_an_old_experiment() -> None:
    old, now = "2019, by words", 2019
    for name in ("prepare.source", "prepare.max_title_chars", "prepare.split_seed"):
        assert decides_split(name, old)
        assert decides_split(name, now)
    for name in ("prepare.digits", "prepare.max_words"):
        assert decides_split(name, old)
        assert not decides_split(name, now)
    for name in ("seed", "prepare.min_count", "prepare.reference", "prepare.drift_length", "cnn.digits"):
        assert not decides_split(name, old)


def git(*arguments: str, text: str | None = None) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", *identity, *arguments], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


SCORES = {
    "balanced_accuracy": 0.8,
    "balanced_accuracy_low": 0.7,
    "balanced_accuracy_high": 0.9,
    "accuracy": 0.75,
    "loss": 0.5,
}
PAIR = {"difference": 0.01, "difference_low": 0.0, "difference_high": 0.02}
MODELS = dict.fromkeys(("average", "cnn", "mlp"), SCORES)
BEST = {
    "best_epoch": 2,
    "train_loss": 1.0,
    "validation_loss": 1.2,
    "validation_balanced_accuracy": 0.8,
}


def write(path: Path | str, content: object) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def write_predictions(right: int) -> None:
    """The file of a version whose titles had a line and no key."""
    rows = 30
    columns: dict[str, Any] = {
        "line": range(2, rows + 2),
        "title": [f"title {row}" for row in range(rows)],
        "category": ["A", "B"] * (rows // 2),
    }
    for name in MODELS:
        columns[name] = [columns["category"][row] if row < right else "C" for row in range(rows)]
        columns |= {f"{name}_confidence": [0.5] * rows, f"{name}_loss": [0.7] * rows}
        columns[f"{name}_rank"] = [int(row >= right) for row in range(rows)]
    PREDICTIONS.parent.mkdir(exist_ok=True)
    pq.write_table(
        pa.table({name: pa.array(list(values)) for name, values in columns.items()}), PREDICTIONS
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three commits: the first version, one with curves in tables, and the present one."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    write(".dvc/config", "[core]\n    analytics = false\n")
    write(".dvc/.gitignore", "/tmp\n/cache\n")
    write("dvc.yaml", "stages: {}")
    write("params.yaml", FIRST)
    write("metrics/evaluate.json", MODELS | {"cnn_less_mlp": PAIR})
    for name in ("cnn", "mlp"):
        write(f"metrics/{name}.json", {name: BEST})
    git("add", "-A")
    git("commit", "-qm", "first")
    git("tag", "first")
    for name in ("cnn", "mlp"):
        for curve in ("train/loss", "validation/loss", "validation/balanced_accuracy"):
            write(
                f"plots/{name}/plots/metrics/{curve}.tsv", f"step\t{Path(curve).name}\n1\t0.5\n2\tnan\n"
            )
    write_predictions(20)
    git("add", "-A")
    git("commit", "-qm", "tables")
    git("tag", "tables")
    git("rm", "-rqf", "plots")
    write("params.yaml", (ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name in ("cnn", "mlp"):
        record = {"train_loss": 1.0, "validation_loss": 1.2, "validation_balanced_accuracy": 0.8}
        write(f"plots/{name}.json", [{"epoch": epoch} | record for epoch in (1, 2)])
    write("metrics/evaluate.json", {"average.balanced_accuracy": 0.8})
    write("metrics/details.json", {"models": MODELS, "pairs": {}})
    write_predictions(29)
    git("add", "-A")
    git("commit", "-qm", "now")
    return tmp_path


@pytest.mark.usefixtures("project")
def test_scores_and_curves_of_older_files_are_read() -> None:
    first, tables, now = (find(name) for name in ("first", "tables", "main"))
    assert first.scores == tables.scores == now.scores == MODELS
    assert tables.curves("cnn") == {
        "train/loss": [(1, 0.5)],
        "validation/loss": [(1, 0.5)],
        "validation/balanced_accuracy": [(1, 0.5)],
    }
    assert len(now.curves("mlp")["train/loss"]) == 2
    with pytest.raises(ValueError, match=r"has no plots/cnn\.json"):
        first.curves("cnn")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"models": {}}'])
def test_a_damaged_file_is_not_replaced_by_an_older_one(content: str) -> None:
    write("metrics/details.json", content)
    git("commit", "-qam", "damaged")
    with pytest.raises(ValueError, match=r"metrics/details\.json of \w+ (is damaged|has no scores)"):
        _ = find("main").scores


def report(*names: str) -> tuple[str, str]:
    assert main(["report", *names]) == 0
    return Path("report.md").read_text(), Path("report.html").read_text()


@pytest.mark.usefixtures("project")
def test_a_report_shows_what_there_is_of_an_old_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    markdown, html = report("main", "first")
    told = capsys.readouterr().err
    for missing in ("plots/cnn.json", "plots/mlp.json", "predictions/test.parquet"):
        line = f"first has no {missing}: it was not run to its end, or by an older version"
        assert f"warning: {line}" in told
        assert line in html
    assert "left out: predictions are missing" in markdown
    assert "left out: predictions are missing" in html
    assert "| first | CNN | 2 | 1.000 |" in markdown
    assert "| main | CNN | 2 of 2 | 1.000 |" in markdown
    assert r"| cnn.label\_smoothing | 0.2 | 0.0 |" in markdown
    assert r"first has no " in markdown
    assert r"evaluate.target\_precision: its version did not know" in markdown
    # The first as the baseline, and alone.
    assert "left out: predictions are missing" in report("first", "main")[0]
    assert report("first")[1].count("<svg") == 1


@pytest.mark.usefixtures("project")
def test_predictions_and_curves_of_an_older_version_are_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    markdown, html = report("tables", "main")
    assert capsys.readouterr().err == ""
    assert "| main | CNN | 30 | +0.300 |" in markdown
    assert html.count("<svg") == 6  # differences, scores, and two of each network
    assert main(["gate", "tables", "main"]) == 0
    assert main(["gate", "main", "tables"]) == 1
    assert main(["gate", "main", "first"]) == 3
    assert "error: not compared: first has no predictions/test.parquet" in capsys.readouterr().err


def lock(*stages: str) -> dict[str, Any]:
    def out(path: str) -> dict[str, str]:
        content = Path(path).read_bytes()
        return {"path": path, "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}

    sections = yaml.safe_load(FIRST)
    held = {
        "prepare": {"outs": []},
        "embed": {"outs": []},
        "train_cnn": {
            "deps": [],
            "params": {"params.yaml": {"cnn": sections["cnn"]}},
            "outs": [out((METRICS / "cnn.json").as_posix())],
        },
        "evaluate": {"deps": [], "params": {}, "outs": [out((METRICS / "evaluate.json").as_posix())]},
    }
    return {"schema": "2.0", "stages": {name: held[name] for name in stages}}


@pytest.mark.usefixtures("project")
def test_results_of_an_older_version_are_found_and_unreadable_ones_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    git("checkout", "-q", "first")
    write("dvc.lock", yaml.safe_dump(lock("prepare", "embed", "train_cnn", "evaluate")))
    git("add", "dvc.lock")
    git("commit", "-qm", "locked")
    training, evaluation = results_at(find("HEAD"))
    assert (training.model, training.scores) == ("cnn", BEST)
    assert evaluation.scores == {"models": MODELS, "pairs": {"cnn_minus_mlp": PAIR}}
    assert capsys.readouterr().err == ""
    part = yaml.safe_dump(lock("prepare"))
    git("rm", "-q", "metrics/cnn.json")
    git("commit", "-qm", "lost")
    assert [result.model for result in results_at(find("HEAD"))] == ["average"]
    assert "is left out in part: " in capsys.readouterr().err
    for content in ("stages: 3", "a: [", part):
        write("dvc.lock", content)
        git("commit", "-qam", "odd")
        assert results_at(find("HEAD")) == []
        assert f"warning: {head()[:7]} is left out: " in capsys.readouterr().err
    git("rm", "-q", "dvc.lock")
    git("commit", "-qm", "none")
    assert results_at(find("HEAD")) == []
    assert "has no dvc.lock" in capsys.readouterr().err


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_warning_of_git_is_no_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, times = head(), find("first").time
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    noise = 'echo "warning: refname HEAD is ambiguous." >&2\necho "hint: detached" >&2\n'
    script(project / "bin/git", f'#!/bin/sh\n{noise}"{real}" "$@"\ncode=$?\n{noise}exit $code\n')
    monkeypatch.setenv("PATH", f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert head() == expected
    assert find("first").time == times
    assert probes.run(project, "git", "rev-parse", "HEAD").out.strip() == expected
    assert main(["report", "tables", "main"]) == 0
    with pytest.raises(ValueError, match="no experiment, branch, tag or commit named 'nope'"):
        find("nope")


def test_a_signature_that_git_shows_is_no_answer(project: Path) -> None:
    """As with `git config log.showSignature true`, and a commit that is signed."""
    script(project / "bin/gpg", "#!/bin/sh\necho 'gpg: Good signature' >&2\n")
    git("config", "gpg.program", str(project / "bin/gpg"))
    git("config", "log.showSignature", "true")
    top, _, message = git("cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----"
    signed = git(
        "hash-object", "-t", "commit", "-w", "--stdin", text=f"{top}\n{signature}\n\n{message}\n"
    )
    assert "gpg: Good signature" in git("show", "--no-patch", "--format=%ct", signed)
    assert find(signed).time == find("HEAD").time


def test_a_warning_of_dvc_is_no_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = "import sys\nprint('DeprecationWarning: an old option', file=sys.stderr)\n"
    write(project / "noise/sitecustomize.py", plugin)
    monkeypatch.setenv("PYTHONPATH", str(project / "noise"))
    said = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"],
        env=commands.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DeprecationWarning" in said.stderr
    assert commands.dvc("cache", "dir") == str(project / ".dvc/cache")
    # But it belongs to what is told of a failure.
    with pytest.raises(ValueError, match=r"dvc cache nowhere failed:\n(.*\n)*DeprecationWarning"):
        commands.dvc("cache", "nowhere")


def test_where_there_is_no_commit_git_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    # It fails, and prints "HEAD" all the same.
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout.strip()) == (True, "HEAD")
    assert mlflow._git_revision() == ""
