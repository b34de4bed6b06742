"""A parameter changes an output, or concerns speed or messages and says so in the schema; where others
leave it without effect, the stage says so. All parameters are tried: one without a case fails."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import chdir, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from pydantic import BaseModel

from networks import NAMES
from small_project import QUICK, ROOT
from titles.data import processor
from titles.data.contract import GIVEN_SPLITS
from titles.datasets.sample import write_csv
from titles.models.registry import load_params
from titles.params import Concerns
from titles.stages import embed, evaluate, prepare, train_cnn, train_mlp

STAGES: dict[str, Any] = {
    "prepare": prepare.main,
    "embed": embed.main,
    "cnn": train_cnn.main,
    "mlp": train_mlp.main,
    "evaluate": evaluate.main,
}
# What a stage writes, without files that repeat its parameters, which any change would change.
OUTPUTS = {
    "prepare": ["data/prepared/[!t]*", "data/prepared/*/*", "metrics/prepare.json"],
    "embed": ["data/embedded/*"],
    "cnn": ["models/cnn/weights.safetensors", "plots/cnn.json"],
    "mlp": ["models/mlp/weights.safetensors", "plots/mlp.json"],
    "evaluate": ["metrics/details.json", "predictions/*", "plots/evaluate/*"],
}
ROWS = 1_200
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """Another value of a parameter, and the values beside which it is tried."""

    value: Any
    beside: dict[str, Any] = field(default_factory=dict)
    stage: str = ""  # if it is not that of the section


VECTORS = {"method": "pretrained", "pretrained": "data/raw/vectors.txt"}
DRIFTED = {"source": "data/raw/later.csv.gz", "reference": "data/raw/profile.json"}
OF_A_NETWORK = {
    "dropout": Case(0.301, {"dropout": 0.3}),
    "word_dropout": Case(0.101),
    "heads": Case(3),
    "freeze_embeddings": Case("partial"),
    "subword_buckets": Case(501),
    "subword_min": Case(2),
    "subword_max": Case(6),
    "epochs": Case(3),
    "batch_size": Case(31, {"batch_size": 32, "min_steps": None}),
    "min_steps": Case(7),
    "learning_rate": Case(0.0101),
    "schedule": Case("constant"),
    "weight_decay": Case(2e-5),
    "logit_adjustment": Case(0.99),
    "label_smoothing": Case(0.11),
    "gce_q": Case(0.21),
    "set_aside_below": Case(0.9),
    "class_weighting": Case("sqrt"),
    "patience": Case(1, {"learning_rate": 1e-30, "epochs": 3}),  # no epoch is better than the first
    "precision": Case("bfloat16"),
    "saved_weights": Case("float32"),
}
CASES = {
    "prepare": {
        "source": Case("data/raw/later.csv.gz"),
        "language": Case("spanish"),
        "corrections": Case("data/raw/corrections.csv"),
        "strip_accents": Case(False),
        "digits": Case("zero"),
        "drop_seller_noise": Case(False),
        "max_title_chars": Case(40),
        "max_words": Case(6),
        "holdout_quality": Case("any"),
        "validation_fraction": Case(0.2),
        "calibration_share": Case(0.4),
        "test_fraction": Case(0.2),
        "split_seed": Case(2020),
        "min_rows": Case(5),
        "min_count": Case(3),
        "max_vocabulary": Case(200),
        "reference": Case("data/raw/profile.json"),
        "drift_categories": Case(0, {**DRIFTED, "drift_categories": 1}),
        "drift_languages": Case(0, {**DRIFTED, "drift_languages": 1}),
        "drift_unknown_words": Case(0, {**DRIFTED, "drift_unknown_words": 1, "max_vocabulary": 200}),
        "drift_length": Case(0, {**DRIFTED, "drift_length": 99, "max_words": 6}),
        "drift_rejected": Case(0, {**DRIFTED, "drift_rejected": 1, "max_title_chars": 40}),
    },
    "embed": {
        "method": Case("fasttext"),
        "pretrained": Case("data/raw/others.txt", VECTORS),
        "dimension": Case(9),
        "epochs": Case(4, {"method": "word2vec"}),
        "window": Case(4),
        "negative": Case(4, {"method": "word2vec"}),
        "subword_min": Case(2, {"method": "fasttext"}),
        "subword_max": Case(5, {"method": "fasttext"}),
        "workers": Case(2),
    },
    "cnn": OF_A_NETWORK | {"filter_lengths": Case([2, 4]), "filter_count": Case(9), "fc_size": Case(17)},
    "mlp": OF_A_NETWORK | {"leading_words": Case(1), "hidden_layers": Case([17])},
    "evaluate": {
        "bootstrap_samples": Case(101),
        "calibration_bins": Case(14),
        "target_precision": Case(0.2, {"target_precision": 0.3}),
        "confused_categories": Case(14),
    },
    "compute": {
        "device": Case("cpu", stage="mlp"),
        "threads": Case(2, stage="mlp"),
        "portable": Case(False, stage="mlp"),
    },
    "": {"seed": Case(2020, stage="mlp")},
}


def leaves(form: type[BaseModel], section: str = "") -> Iterator[tuple[str, str, str]]:
    """Section, name and, if the schema declares that it changes no result, what a parameter concerns."""
    for name, about in form.model_fields.items():
        if isinstance(about.annotation, type) and issubclass(about.annotation, BaseModel):
            yield from leaves(about.annotation, name)
        else:
            marks = [mark.only for mark in about.metadata if isinstance(mark, Concerns)]
            yield section, name, "".join(marks)


LEAVES = list(leaves(type(load_params(ROOT / "params.yaml"))))
DECLARED = {(section, name): concerns for section, name, concerns in LEAVES if concerns}


def _listings(file: Path) -> list[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _write_without_qualities(source: Path, file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["title", "category"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_listings(source))


def _write_corrections(source: Path, file: Path) -> None:
    """Another category of the sample for some titles of it."""
    rows = _listings(source)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["title", "category", "suggested", "accept"])
        for row in rows[:20]:
            other = next(one["category"] for one in rows if one["category"] != row["category"])
            writer.writerow([row["title"], row["category"], other, "yes"])


def _write_with_splits(source: Path, folder: Path) -> None:
    """The course's files, of one language."""
    folder.mkdir()
    rows = [row | {"language": "spanish"} for row in _listings(source)]
    for number, split in enumerate(GIVEN_SPLITS):
        with gzip.open(folder / f"spanish.{split}.jsonl.gz", "wt", encoding="utf-8") as stream:
            for row in rows[number::3]:
                stream.write(json.dumps(row | {"split": split}) + "\n")


class Done(NamedTuple):
    """What a stage wrote, by path, and what it said on stderr."""

    hashes: dict[str, str]
    told: str


class Project:
    """Folders in which one stage each is run, with what the stages before it made."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        quick = QUICK | {"dimension": 8, "min_steps": 6, "learning_rate": 0.01}
        for section in self.params.values():
            if isinstance(section, dict):
                section |= {key: value for key, value in quick.items() if key in section}
        self.params["compute"] |= {"threads": 1, "device": "auto"}
        self.run = cache(self._run)
        raw = place / "raw"
        raw.mkdir()
        (place / "pretrained").mkdir()
        (place / "pretrained/none").touch()
        (place / "corrections").mkdir()
        (place / "corrections/none").touch()
        write_csv(ROWS, 7, raw / "sample.csv.gz", progress=False)
        write_csv(ROWS, 8, raw / "later.csv.gz", progress=False)
        _write_without_qualities(raw / "sample.csv.gz", raw / "plain.csv")
        _write_with_splits(raw / "sample.csv.gz", raw / "course")
        _write_corrections(raw / "sample.csv.gz", raw / "corrections.csv")
        first = self.folder("prepare")
        self.done("prepare", {})
        shutil.copy(first / "data/prepared/profile.json", raw)
        self.folder("embed", "prepare")
        self.done("embed", {})
        words = (first / "data/prepared/vocabulary.tsv").read_text(encoding="utf-8").splitlines()
        words = [line.split("\t")[0] for line in words[9:200]]
        for name, size in (("vectors", 0.1), ("others", 0.2)):
            lines = [f"{word} {' '.join([str(size * n)] * 8)}\n" for n, word in enumerate(words)]
            text = f"{len(words)} 8\n{''.join(lines)}"
            (raw / f"{name}.txt").write_text(text, encoding="utf-8")
        for network in NAMES:
            self.folder(network, "embed")
        self.folder("evaluate", "embed")
        for network in NAMES:
            with chdir(self.place / "evaluate"):
                self._write("evaluate", {f"{network}.epochs": 9})
                STAGES[network].__wrapped__()

    def folder(self, stage: str, before: str = "") -> Path:
        """Make the folder of a stage; it starts with what that of the one before holds."""
        folder = self.place / stage
        if before:
            shutil.copytree(self.place / before, folder, symlinks=True)
            return folder
        (folder / "data").mkdir(parents=True)
        (folder / "data/raw").symlink_to("../../raw")
        (folder / "data/pretrained").symlink_to("../../pretrained")
        (folder / "data/corrections").symlink_to("../../corrections")
        return folder

    def _write(self, stage: str, changes: Changes) -> None:
        params = json.loads(json.dumps(self.params))
        for dotted, value in changes.items():
            section, _, name = dotted.rpartition(".")
            (params[section] if section else params)[name] = value
        Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    def _run(self, stage: str, changes: str = "{}") -> Done:
        told = io.StringIO()
        with chdir(self.place / stage), redirect_stderr(told):
            self._write(stage, json.loads(changes))
            STAGES[stage].__wrapped__()
            found = [path for pattern in OUTPUTS[stage] for path in Path().glob(pattern)]
            files = [path for path in found if path.is_file()]
            assert files
            hashes = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return Done(hashes, told.getvalue())

    def again(self, stage: str) -> Done:
        return self._run(stage)

    def done(self, stage: str, changes: Changes) -> Done:
        """Run a stage with changed parameters, under dotted names, if no test has."""
        return self.run(stage, json.dumps(dict(sorted(changes.items()))))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TITLES_MLFLOW", "off")
        patch.delenv("DVC_ROOT", raising=False)
        threads = torch.get_num_threads()
        yield Project(tmp_path_factory.mktemp("parameters"))
        torch.set_num_threads(threads)


def dotted(section: str, values: Changes) -> dict[str, Any]:
    return {f"{section}.{name}" if section else name: value for name, value in values.items()}


def test_every_parameter_has_a_case() -> None:
    found = {(section, name) for section, name, _ in LEAVES}
    assert found == {(section, name) for section, cases in CASES.items() for name in cases}


@pytest.mark.parametrize(
    ("section", "name"), [one[:2] for one in LEAVES if not one[2]], ids=lambda part: part or "-"
)
def test_it_changes_an_output(project: Project, section: str, name: str) -> None:
    case = CASES[section][name]
    stage = case.stage or section
    before = project.done(stage, dotted(section, case.beside))
    after = project.done(stage, dotted(section, case.beside | {name: case.value}))
    assert before.hashes != after.hashes
    assert f"{section}.{name}" not in before.told + after.told


@pytest.mark.parametrize("stage", STAGES)
def test_what_changes_outputs_is_the_parameter_and_not_the_run(project: Project, stage: str) -> None:
    once = project.done(stage, {})
    project.done(stage, {"seed": 1})
    assert project.again(stage).hashes == once.hashes


@pytest.mark.parametrize("name", [name for section, name in DECLARED if section == "prepare"])
def test_a_parameter_for_messages_changes_them_and_no_output(project: Project, name: str) -> None:
    assert DECLARED["prepare", name] == "messages"
    case = CASES["prepare"][name]
    before = project.done("prepare", dotted("prepare", case.beside))
    after = project.done("prepare", dotted("prepare", case.beside | {name: case.value}))
    assert before.hashes == after.hashes
    assert f"past prepare.{name} = " not in before.told
    assert f"past prepare.{name} = " in after.told


def test_parameters_for_speed_are_these_and_the_device_changes_no_output(project: Project) -> None:
    speed = {f"{section}.{name}" for (section, name), only in DECLARED.items() if only == "speed"}
    # Other workers of word2vec give other vectors; `test_processor.py` has compute.portable.
    assert speed == {"compute.device", "compute.threads", "compute.portable", "embed.workers"}
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"compute\.device is cuda, but no GPU is usable"):
            project.done("mlp", {"compute.device": "cuda"})
        changed = project.done("mlp", {"compute.device": "cpu"})
        assert changed.hashes == project.done("mlp", {}).hashes


@pytest.mark.skipif(not processor.portable(), reason="only for x86-64 with AVX2")
@pytest.mark.parametrize("network", NAMES)
def test_the_number_of_threads_changes_no_output(project: Project, network: str) -> None:
    one = project.done(network, {"compute.threads": 1}).hashes
    assert project.done(network, {"compute.threads": 3}).hashes == one


COMPARED = {"reference": "data/raw/profile.json"}
SPLITTING = {"validation_fraction": 0.2, "test_fraction": 0.2, "holdout_quality": "any"}
UNDIVIDED = {"calibration_share": 0}
LIMITS = {name: 1 for _, name in DECLARED if name.startswith("drift_")}
# Values, and others of parameters that these leave without effect.
IDLE = [
    ("prepare", {}, LIMITS),
    ("prepare", {"source": "data/raw/plain.csv", **COMPARED}, {"holdout_quality": "any"}),
    ("prepare", {"source": "data/raw/course", **COMPARED}, SPLITTING),
    (
        "prepare",
        {"source": "data/raw/course", **COMPARED, **UNDIVIDED},
        SPLITTING | {"split_seed": 3},
    ),
    (
        "prepare",
        {"min_rows": 3, "validation_fraction": 0.001, **COMPARED, "calibration_share": 0.3},
        {"calibration_share": 0.2},
    ),
    ("embed", {"method": "word2vec"}, {"subword_min": 2, "subword_max": 7}),
    (
        "embed",
        {},
        {"epochs": 4, "negative": 4, "subword_min": 2, "subword_max": 7},
    ),
    (
        "embed",
        {"method": "encoder"},
        {"epochs": 4, "negative": 4, "subword_min": 2, "subword_max": 7},
    ),
    (
        "embed",
        VECTORS,
        {"epochs": 4, "window": 4, "negative": 4, "subword_min": 2, "subword_max": 7, "workers": 2},
    ),
    ("evaluate", {"confused_categories": 5_000}, {"confused_categories": 6_000}),
    *(
        (network, beside, changed)
        for network in NAMES
        for beside, changed in (
            ({"subword_buckets": 0}, {"subword_min": 2, "subword_max": 7}),
            ({"patience": 2}, {"patience": 4}),
            ({"epochs": 1}, {"set_aside_below": 0.5}),
            ({"batch_size": 5_000, "min_steps": None}, {"batch_size": 6_000}),
        )
    ),
]


@pytest.mark.parametrize(("stage", "beside", "changed"), IDLE)
def test_parameters_without_effect_are_named_and_have_none(
    project: Project, stage: str, beside: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = project.done(stage, dotted(stage, beside))
    after = project.done(stage, dotted(stage, beside | changed))
    assert before.hashes == after.hashes
    for told in (before.told, after.told):
        (line,) = (line for line in told.splitlines() if "without effect" in line)
        assert line.startswith("note: without effect in this run: ")
        named = set(re.findall(rf"{stage}\.\w+", line))
        assert named == set(dotted(stage, changed))


def test_where_all_have_an_effect_nothing_is_named(project: Project) -> None:
    assert [project.done(stage, {}).told for stage in (*NAMES, "evaluate")] == ["", "", ""]
