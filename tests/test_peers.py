"""Other classifiers, beside which `make bench` measures the networks: benchmarks/."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from titles.data.contract import PREPARED, SPLITS
from titles.data.encoded import EncodedTitles
from titles.data.outcomes import balanced_accuracy
from titles.datasets.sample import write_csv

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
CATEGORIES = 8
_NOT_RUN = "NOT RUN: install packages of other classifiers by benchmarks/packages.py"
NAMES = re.findall(r'^    "(\w+)": Alternative\(', (BENCHMARKS / "classifiers.py").read_text(), re.M)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of the benchmark in which 300 titles of the most frequent categories are prepared."""
    folder = tmp_path_factory.mktemp("peers")
    write_csv(6_000, 7, folder / "all.csv", progress=False)
    with (folder / "all.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    place = header.index("category")
    frequent = [name for name, _ in Counter(row[place] for row in rows).most_common(CATEGORIES)]
    kept = [row for row in rows if row[place] in frequent][:300]
    assert len(kept) == 300
    with (folder / "listings.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *kept])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.chdir(ROOT)
        from workspace import Workspace

        workspace = Workspace(folder / "whole", "key", 2019)
        workspace.begin(lambda _: folder / "listings.csv")
        workspace.run("prepare")
    return workspace.folder


def _searched(name: str, folder: Path, *options: str) -> dict[str, Any]:
    """The result of a search as a command."""
    command = [sys.executable, str(BENCHMARKS / "search.py"), name, f"{name}.json", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


@pytest.mark.pipeline
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_learns_and_tries_its_settings_on_validation(
    name: str, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole)
    if name == "turbo":  # its module has the name of fastText's, which is loaded in this process
        found = _searched(name, whole)
        if "error" in found:
            pytest.skip(f"{_NOT_RUN}: {found['error']}")
    else:
        from peers import make
        from search import search

        from titles.models.registry import load_params

        params = load_params()
        try:
            peer = make(name, params)
        except ImportError as missing:
            pytest.skip(f"{_NOT_RUN}: {missing}")
        found = search(peer, params, peer.grid, 300)
    test = EncodedTitles.open(whole / PREPARED / "test")
    predicted_N = np.array(found["predicted"])
    # 30 titles or so: by chance 1/8, with a standard error of 1/16.
    assert balanced_accuracy(test.labels, predicted_N == test.labels) > 0.3
    scored = [trial for trial in found["trials"] if "validation" in trial]
    assert found["validation"] == max(trial["validation"] for trial in scored)
    corrections = Counter(trial["setting"].get("prior_corrected") for trial in scored)
    assert corrections[True] == corrections[False]
    assert (corrections[True] > 0) == (name not in ("svm", "hybrid"))
    assert found["size_bytes"] > 10_000
    assert found["train_seconds"] > 0


@pytest.mark.pipeline
def test_a_setting_that_was_tuned_before_is_taken_as_it_is(whole: Path) -> None:
    setting = {"alpha": 0.3, "norm": False, "prior_corrected": True}
    found = _searched("bayes", whole, "--setting", json.dumps(setting))
    assert [trial["setting"] for trial in found["trials"]] == [setting] == [found["setting"]]


@pytest.mark.pipeline
def test_a_classifier_whose_package_is_missing_is_named(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A version that nobody has, in a copy of the programs.
    shutil.copytree(BENCHMARKS, tmp_path / "benchmarks")
    requirements = tmp_path / "benchmarks/requirements.txt"
    requirements.write_text(re.sub("==.*", "==0.0.0", requirements.read_text()))
    monkeypatch.setitem(globals(), "BENCHMARKS", tmp_path / "benchmarks")
    found = _searched("napkin", whole)
    assert list(found) == ["error"]
    assert re.match(r"napkinxc 0\.0\.0: (not installed|version .* is installed)", found["error"])


def test_shares_are_divided_out_of_probabilities() -> None:
    from peers import Peer, log_shares

    class Fixed(Peer):
        def scores(self, titles: Any) -> Any:
            return np.array([[*np.log([0.6, 0.4]), -np.inf], [*np.log([0.9, 0.1]), -np.inf]])

        learn_from = fit = size = None

    Fixed.__abstractmethods__ = frozenset()
    labels = np.array([0, 0, 0, 1])
    assert Fixed().predict(["a", "b"]).tolist() == [0, 0]
    # 0.6 / 0.75 < 0.4 / 0.25, and 0.9 / 0.75 > 0.1 / 0.25; no row of category 2 was seen.
    assert Fixed().predict(["a", "b"], log_shares(labels, 3)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("counts", "size"), [((50, 30, 20), 10), ((1000, 7, 1, 1), 20), ((3, 3, 3), 3), ((90, 1, 9), 100)]
)
def test_a_cut_is_stratified(counts: tuple[int, ...], size: int) -> None:
    from cut import stratified

    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = stratified(labels, size, 5)
    assert len(set(chosen.tolist())) == len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    kept = np.bincount(labels[chosen], minlength=len(counts))
    assert (kept >= 1).all()
    exact = np.array(counts) * size / len(labels)
    # Rows of categories too small for one are taken from the largest.
    assert (np.abs(kept - exact) <= 1 + np.maximum(1 - exact, 0).sum()).all()
    assert np.array_equal(chosen, stratified(labels, size, 5))
    if size < len(labels) // 2:
        assert not np.array_equal(chosen, stratified(labels, size, 6))
    for impossible in (len(counts) - 1, len(labels) + 1):
        with pytest.raises(ValueError, match="cannot be cut"):
            stratified(labels, impossible, 5)


@pytest.mark.pipeline
def test_a_cut_leaves_validation_and_test_whole(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    import cut
    from rows import digest_of_rows, read_splits
    from workspace import Workspace

    from titles.models.registry import load_params

    def made(name: str, seed: int) -> Workspace:
        workspace = Workspace(tmp_path / name, "key", 2019, cut.SETTINGS)
        workspace.begin(lambda folder: cut.write(whole, 100, seed, folder))
        workspace.run("prepare")
        cut.check(whole, workspace.folder, 100)
        return workspace

    one, same, other = made("one", 3), made("same", 3), made("other", 4)
    digests = [digest_of_rows(each.folder, each.source) for each in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    read = {
        folder: read_splits(load_params(folder / "params.yaml"), folder)
        for folder in (whole, one.folder, other.folder)
    }
    for name in SPLITS:
        rows = {
            folder: list(zip(splits[name].titles, splits[name].labels.tolist(), strict=True))
            for folder, splits in read.items()
        }
        if name == "train":
            assert len(rows[one.folder]) == 100
            assert set(rows[one.folder]) < set(rows[whole])
            assert rows[one.folder] != rows[other.folder]
        elif name == "calibration":
            assert rows[whole]
            assert rows[one.folder] == []
        else:
            assert rows[one.folder] == rows[other.folder] == rows[whole]
    # Words that only other training rows have are not in the vocabulary.
    sizes = [
        len((folder / PREPARED / "vocabulary.tsv").read_text().splitlines())
        for folder in (whole, one.folder)
    ]
    assert sizes[1] < sizes[0]
    with pytest.raises(RuntimeError, match="training rows, instead of 100"):
        cut.check(whole, whole, 100)


def _wheel(folder: Path, name: str, module: str) -> None:
    stem = f"{name.replace('-', '_')}-1.0"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}.py", f"maker = {name!r}\n")
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.mark.pipeline
def test_packages_of_one_module_do_not_meet_and_one_that_does_not_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import packages

    names = ["first-peer", "no-such-peer", "second-peer"]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# text\n" + "".join(f"{name}==1.0\n" for name in names))
    monkeypatch.setattr(packages, "REQUIREMENTS", requirements)
    monkeypatch.setattr(packages, "FOLDER", tmp_path / "packages")
    with pytest.raises(ImportError, match=r"^first-peer 1\.0: not installed$"):
        packages.use("first-peer")
    for name in ("first-peer", "second-peer"):
        _wheel(tmp_path, name, "peer_module")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    packages.main([])
    told = capsys.readouterr().err
    assert "first-peer 1.0 is installed" in told
    assert "second-peer 1.0 is installed" in told
    error = "No matching distribution found for no-such-peer==1.0"
    assert f"no-such-peer 1.0 does not install: ERROR: {error}" in told
    with pytest.raises(ImportError, match=error):
        packages.use("no-such-peer")
    code = f"""import packages, sys; from pathlib import Path
packages.REQUIREMENTS, packages.FOLDER = Path({str(requirements)!r}), Path({str(packages.FOLDER)!r})
packages.use(sys.argv[1]); import peer_module; print(peer_module.maker)"""
    for name in ("first-peer", "second-peer"):
        command = [sys.executable, "-c", code, name]
        found = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == name

    # What failed before is tried again, and its error forgotten.
    _wheel(tmp_path, "no-such-peer", "another")
    packages.main(["no-such-peer"])
    assert not list(packages.FOLDER.glob("*.error.txt"))


def _result(labels_N: Any, right: float, seed: int, train_rows: int, **more: Any) -> Any:
    from results import Result

    is_right = np.random.default_rng(seed).random(len(labels_N)) < right
    predicted_N = np.where(is_right, labels_N, (labels_N + 1) % CATEGORIES)
    values = {"validation": right, "train_seconds": 1.0, "predict_seconds": 1.0, "peak_mib": 1.0}
    same = {"key": "k", "rows": "r", "categories": CATEGORIES, "size_bytes": 2**20, "budget": 9.0}
    return Result(
        labels_N=labels_N, predicted_N=predicted_N, train_rows=train_rows, **values, **same, **more
    )


def _write_results(case: Any, train_rows: int, shares: dict[str, float]) -> dict[str, float]:
    from results import write_result

    case.folder.mkdir(parents=True)
    labels_N = np.arange(400) % CATEGORIES
    stages = {stage: [1.0, 1.0] for stage in ("prepare", "embed", "train_cnn", "train_mlp")}
    scores = {}
    for place, (name, share) in enumerate(shares.items()):
        more: dict[str, Any] = {"stages": stages, "curve": [0.5]}
        if name not in ("cnn", "mlp", "average"):
            setting = {"C": 1.0}
            more = {"setting": setting, "trials": [{"setting": setting, "validation": share}]}
        machine = "" if name == "mlp" else f"a machine for {case.name}"
        result = _result(labels_N, share, 10 * place + case.seed, train_rows, machine=machine, **more)
        write_result(case, name, result)
        scores[name] = result.test
    return scores


def test_the_report_marks_what_is_better_and_names_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import chart
    import report
    from results import Case, write_failure

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    ours = {"cnn": 0.7, "mlp": 0.7, "average": 0.75}
    cases = [Case("sample-2000", 1), Case("sample-6000", 1), Case("shop-cut-3000", 1), Case("shop", 1)]
    shares = [
        {"svm": 0.6, "sgd": 0.4, "encoder": 0.9},
        {"svm": 0.5, "sgd": 0.95, "encoder": 0.3},
        {"svm": 0.5, "sgd": 0.4, "encoder": 0.2},
        {"svm": 0.6, "encoder": 0.2},  # sgd failed
    ]
    rows = [1_500, 4_500, 3_000, 9_000]
    found = {
        case.name: _write_results(case, size, ours | share)
        for case, size, share in zip(cases, rows, shares, strict=True)
    }
    write_failure(cases[-1], "sgd", "killed | by signal 9")
    report.write_report(cases, "command")
    page = (tmp_path / "docs/benchmark.md").read_text(encoding="utf-8")

    alone = report.machines([report.SetResults(cases[:1])])
    assert alone == "Made on a machine for sample-2000."
    told = "a machine for sample-2000; and on a machine for sample-6000; and on a machine for shop"
    assert f"Made on several machines, whose times do not compare: {told}" in page

    head, summary = page.split("## sample-2000")[0], {}
    for line in head.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and ".." not in line:
            summary.setdefault(cells[0], cells[1:])
    assert summary["dataset"] == ["average", "SVM", "SGD", "encoder"]
    for name, scores in found.items():
        for cell, peer in zip(summary[name], ("average", "svm", "sgd", "encoder"), strict=True):
            if peer not in scores:
                assert cell == ""
                continue
            is_better = scores[peer] > scores["average"] and peer != "average"
            assert cell == (f"**{scores[peer]:.4f}** >" if is_better else f"{scores[peer]:.4f}")
    assert head.count("** >") == 2
    first = [case.name for case in cases[:3]]
    mean = np.mean([found[name]["svm"] for name in first])
    assert summary["mean of 3"][1] == f"{mean:.4f}"
    # The peer by validation, without borrowed knowledge; and the one with it.
    paired = {line.split(" | ")[0]: line for line in head.splitlines() if ".." in line and "|" in line}
    assert "| SGD |" in paired["| sample-6000"]
    assert "| SVM |" in paired["| shop"]
    difference = found["shop"]["average"] - found["shop"]["svm"]
    assert f"| {difference:+.4f} |" in paired["| shop"]
    assert all("| encoder |" in line for line in paired.values())
    assert "SGD was not run: killed | by signal 9" in head
    assert "| TF-IDF words and characters, SGD | not run: killed \\| by signal 9 |" in page

    panels = {(point["set"], point["rows"]) for point in chart.learning_curve(page)["data"]["values"]}
    assert panels == {("sample", 1_500), ("sample", 4_500), ("shop", 3_000), ("shop", 9_000)}
    times = {point["set"] for point in chart.accuracy_time(page)["data"]["values"]}
    assert times == {"sample-2000", "sample-6000", "shop"}
    for name in ("learning_curve", "accuracy_time"):
        assert (tmp_path / f"docs/{name}.png").stat().st_size > 1_000


def test_every_classifier_looks_different_in_the_charts() -> None:
    import chart
    from classifiers import OURS, PEERS

    points = [{"classifier": name, "own": True} for name in OURS]
    points += [{"classifier": name, "own": False} for name in PEERS]
    colours, shapes = chart._look(points)
    assert colours["domain"] == shapes["domain"] == [*OURS, *PEERS]
    looks = list(zip(colours["range"], shapes["range"], strict=True))
    assert len(set(looks)) == len(looks)
    assert [shape for _, shape in looks[: len(OURS)]] == ["circle"] * len(OURS)
    assert "circle" not in [shape for _, shape in looks[len(OURS) :]]


def test_cuts_follow_their_dataset() -> None:
    from accuracy import Origin, tuned_on, with_cuts
    from results import Case

    cases = dict(
        with_cuts(
            [
                (Case("sample-2000", 1), Origin(None, 2_000)),
                (Case("sample-600000", 2019), Origin(None, 600_000)),
                (Case("shop", 2), Origin(Path("shop.csv"), 0)),
            ],
            [3_000, 8_000],
        )
    )
    assert [case.name for case in cases] == [
        "sample-2000",
        "sample-600000",
        *("shop", "shop-cut-3000", "shop-cut-8000"),
    ]
    cut = Case("shop-cut-3000", 2)
    assert cases[cut].whole == Case("shop", 2)
    wanted = [(60_000, 3), (600_000, 1)]
    large = Case("sample-600000", 2019)
    # A search on all rows would take too long.
    assert tuned_on(large, cases[large], wanted).name == "sample-60000"
    assert tuned_on(cut, cases[cut], wanted) == Case("shop-cut-3000", 2019)
