import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from titles.models.registry import load_params, parse_params
from titles.params import Embed, Params

COMMITTED = Path(__file__).parent.parent / "params.yaml"
REMOVED = object()


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# As DVC reads them: 1e-05 is a number there.
VALUES = dict(leaves(YAML(typ="safe").load(COMMITTED.read_text(encoding="utf-8"))))
LISTS = [name for name, value in VALUES.items() if isinstance(value, list)]


@pytest.fixture
def changed():
    """The committed values with some dotted keys set, or removed where the value is REMOVED."""

    def build(changes):
        values = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
        for dotted, value in changes.items():
            *path, key = dotted.split(".")
            section = values
            for name in path:
                section = section[name]
            if value is REMOVED:
                del section[key]
            else:
                section[key] = value
        return values

    return build


def problems(values):
    with pytest.raises(ValueError, match="problem") as caught:
        parse_params(values, "params.yaml")
    first, *rest = str(caught.value).split("\n  ")
    assert first == f"params.yaml has {len(rest)} problem{'s' * (len(rest) > 1)}:"
    return rest


def test_the_committed_file_is_valid():
    params = load_params(COMMITTED)
    assert params.cnn.weight_decay == 0.00001  # YAML gives the string "1e-5"
    assert params.cnn.filter_lengths == (1, 2, 3)


def test_every_knob_of_the_committed_file_is_documented_on_its_line():
    documented, undocumented, section, as_before = set(), [], "", ""
    for line in COMMITTED.read_text(encoding="utf-8").splitlines():
        if not (match := re.match(r"( *)(\w+):([^#]*)(# *\S.*)?$", line)):
            continue
        indent, key, value, comment = match.groups()
        if not indent:
            section = key
            if not value.strip():
                continue
        if comment:
            documented.add((section, key))
            as_before = section if "and so on below" in comment else as_before
        elif not (as_before == section and ("cnn", key) in documented):
            undocumented.append(f"{section}.{key}")
    assert undocumented == []
    assert {key for section, key in documented if section == "embed"} == set(Embed.model_fields)


def override(name, value):
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def other(value):
    """Another value, which takes no more columns, so that no comment has to move."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, 7] if len(value) == 1 else value[:1]
    return value[:-1] if isinstance(value, str) else 4 if value == 3 else 3


@pytest.mark.parametrize("name", VALUES)
def test_a_value_set_by_dvc_and_set_back_leaves_the_file_as_it_was(tmp_path, name):
    file = tmp_path / "params.yaml"
    shutil.copy(COMMITTED, file)
    apply_overrides(file, [override(name, other(VALUES[name]))])  # what `dvc exp run -S` calls
    lines, before = (path.read_text(encoding="utf-8").splitlines() for path in (file, COMMITTED))
    key = name.rpartition(".")[2]
    assert lines != before
    assert {line for line in before if line not in lines and not line.startswith("  - ")} <= {
        line for line in before if line.strip().startswith(f"{key}:")
    }
    apply_overrides(file, [override(name, VALUES[name])])
    assert file.read_bytes() == COMMITTED.read_bytes()


@pytest.mark.parametrize("value", [[1], [5, 4, 3, 2], list(range(1, 40))], ids=len)
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_any_length_are_set_back_too(tmp_path, name, value):
    file = tmp_path / "params.yaml"
    shutil.copy(COMMITTED, file)
    apply_overrides(file, [override(name, value)])
    apply_overrides(file, [override(name, VALUES[name])])
    assert file.read_bytes() == COMMITTED.read_bytes()


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        pytest.param(
            {"cnn.droput": 0.1}, "cnn.droput", "unknown key; did you mean dropout?", id="misspelt key"
        ),
        pytest.param(
            {"evalute": {}}, "evalute", "unknown key; did you mean evaluate?", id="misspelt section"
        ),
        pytest.param(
            {"mlp.filter_count": 7}, "mlp.filter_count", "unknown key", id="key of another section"
        ),
        pytest.param({"mlp.epochs": REMOVED}, "mlp.epochs", "missing", id="missing key"),
        pytest.param({"embed": REMOVED}, "embed", "missing", id="missing section"),
        pytest.param(
            {"cnn.freeze_embeddings": 1},
            "cnn.freeze_embeddings",
            "must be true, false or partial",
            id="1 to freeze",
        ),
        pytest.param(
            {"cnn.filter_lengths": 3},
            "cnn.filter_lengths",
            "must be a list",
            id="one length without list",
        ),
        pytest.param({"cnn": None}, "cnn", "must be a section with keys", id="empty section"),
        pytest.param(
            {"cnn.fc_size": "8"}, "cnn.fc_size", "Input should be a valid integer", id="text for a count"
        ),
        pytest.param(
            {"cnn.fc_size": 8.0},
            "cnn.fc_size",
            "Input should be a valid integer",
            id="float for a count",
        ),
        pytest.param({"seed": True}, "seed", "Input should be a valid integer", id="bool for a count"),
        pytest.param(
            {"cnn.word_dropout": False},
            "cnn.word_dropout",
            "Input should be a valid number",
            id="bool for a number",
        ),
        pytest.param(
            {"mlp.learning_rate": "fast"},
            "mlp.learning_rate",
            "Input should be a valid number",
            id="word for a number",
        ),
        pytest.param(
            {"prepare.strip_accents": 1},
            "prepare.strip_accents",
            "Input should be a valid boolean",
            id="1 for true",
        ),
        pytest.param(
            {"prepare.digits": "remove"},
            "prepare.digits",
            "Input should be 'keep', 'zero' or 'drop'",
            id="choice",
        ),
        pytest.param({"mlp.weight_decay": float("nan")}, "mlp.weight_decay", "finite number", id="nan"),
        pytest.param(
            {"mlp.learning_rate": "inf"}, "mlp.learning_rate", "finite number", id="infinity as text"
        ),
        *(
            pytest.param(
                {"mlp.dropout": dropped},
                "mlp.dropout",
                "must be auto or a number from 0 on, less than 1",
                id=f"{dropped!r} dropped",
            )
            for dropped in (1, -0.1, False, True, "Auto", "1e0", "", None, [0.3], float("nan"), "inf")
        ),
        pytest.param(
            {"cnn.learning_rate": "0e0"}, "cnn.learning_rate", "greater than 0", id="no learning"
        ),
        pytest.param(
            {"prepare.test_fraction": 0.41},
            "prepare.test_fraction",
            "less than or equal to 0.4",
            id="test too large",
        ),
        pytest.param({"seed": 2**32}, "seed", "less than 4294967296", id="seed beyond numpy"),
        pytest.param({"mlp.hidden_layers": []}, "mlp.hidden_layers", "at least 1 item", id="no layer"),
        pytest.param(
            {"mlp.hidden_layers": [3, 0]},
            "mlp.hidden_layers.1",
            "greater than or equal to 1",
            id="layer of nothing",
        ),
        pytest.param(
            {"cnn.filter_lengths": [2, 3, 2]},
            "cnn.filter_lengths",
            "holds a value twice",
            id="doubled filter",
        ),
        pytest.param(
            {"cnn.filter_lengths": [2, 5], "prepare.max_words": 4},
            "cnn",
            "prepare.max_words = 4",
            id="filter longer than titles",
        ),
        pytest.param(
            {"embed.subword_max": 2},
            "embed.subword_max",
            "at least subword_min = 3",
            id="subwords reversed",
        ),
        pytest.param(
            {"mlp.subword_max": 2},
            "mlp.subword_max",
            "at least subword_min = 3",
            id="subwords of a network reversed",
        ),
        pytest.param(
            {"cnn.subword_min": 0},
            "cnn.subword_min",
            "greater than or equal to 1",
            id="n-grams of nothing",
        ),
        pytest.param(
            {"cnn.subword_buckets": -1},
            "cnn.subword_buckets",
            "greater than or equal to 0",
            id="fewer than no buckets",
        ),
        pytest.param({"cnn.word_dropout": 1}, "cnn.word_dropout", "less than 1", id="no words left"),
        pytest.param(
            {"mlp.word_dropout": -0.1},
            "mlp.word_dropout",
            "greater than or equal to 0",
            id="negative word dropout",
        ),
        pytest.param(
            {"cnn.label_smoothing": 1.0},
            "cnn.label_smoothing",
            "less than 1",
            id="nothing of a label left",
        ),
        pytest.param(
            {"cnn.set_aside_below": 1.0},
            "cnn.set_aside_below",
            "less than 1",
            id="set_aside_below at 1",
        ),
        pytest.param(
            {"cnn.gce_q": 1.1},
            "cnn.gce_q",
            "less than or equal to 1",
            id="gce_q past the absolute error",
        ),
        pytest.param(
            {"mlp.leading_words": -1},
            "mlp.leading_words",
            "greater than or equal to 0",
            id="fewer than no leading words",
        ),
        pytest.param(
            {"mlp.logit_adjustment": -1},
            "mlp.logit_adjustment",
            "greater than or equal to 0",
            id="adjustment towards frequent categories",
        ),
        pytest.param(
            {"cnn.logit_adjustment": float("nan")},
            "cnn.logit_adjustment",
            "finite number",
            id="adjustment by nan",
        ),
        pytest.param({"cnn.min_steps": 0}, "cnn.min_steps", "greater than or equal to 1", id="no steps"),
        *(
            pytest.param(
                {"mlp.batch_size": size},
                "mlp.batch_size",
                "must be auto or a whole number",
                id=f"{size!r} titles",
            )
            for size in (0, -1, True, 2.0, "64", "Auto", None)
        ),
        *(
            pytest.param(
                {"cnn.epochs": epochs},
                "cnn.epochs",
                "must be auto or a whole number from 1 to 100000",
                id=f"{epochs!r} epochs",
            )
            for epochs in (0, 100_001, True, 8.0, "8", None)
        ),
        pytest.param(
            {"mlp.batch_size": 512},
            "mlp.min_steps",
            "must be null where batch_size is a number",
            id="two sizes of batches",
        ),
        pytest.param(
            {"mlp.min_steps": None},
            "mlp.min_steps",
            "must be a number where batch_size is auto",
            id="no size of batches",
        ),
        pytest.param(
            {"cnn.heads": 8, "cnn.fc_size": 7},
            "cnn.fc_size",
            "is 7, which is less than heads = 8",
            id="more heads than units of the CNN",
        ),
        pytest.param(
            {"mlp.heads": 8, "mlp.hidden_layers": [512, 7]},
            "mlp.hidden_layers",
            "ends with 7, which is less than heads = 8",
            id="more heads than units of the MLP's last layer",
        ),
        pytest.param(
            {"cnn.heads": 65},
            "cnn.heads",
            "must be auto or a whole number from 1 to 64",
            id="more heads than any use",
        ),
        pytest.param(
            {"mlp.leading_words": 33},
            "mlp",
            "leading_words is 33, but titles are cut at prepare.max_words = 32",
            id="more leading words than words",
        ),
        pytest.param(
            {"mlp.schedule": "cosine"},
            "mlp.schedule",
            "Input should be 'constant' or 'one_cycle'",
            id="unknown schedule",
        ),
        pytest.param(
            {"embed.pretrained": "v.bin"},
            "embed.pretrained",
            "would be ignored",
            id="file without method",
        ),
        pytest.param(
            {"embed.method": "pretrained"},
            "embed.pretrained",
            "must name a word2vec file",
            id="method without file",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_dotted_name(changed, changes, key, message):
    (problem,) = problems(changed(changes))
    assert problem.startswith(f"{key}: ")
    assert message in problem


def test_all_problems_are_told_at_once(changed):
    told = problems(
        changed(
            {
                "seed": -1,
                "prepare.min_row": 3,
                "embed.method": "glove",
                "embed.subword_max": 1,
                "cnn.subword_max": 2,
                "cnn.filter_lengths": [3, 3],
                "mlp": REMOVED,
            }
        )
    )
    assert sorted(problem.split(":")[0] for problem in told) == [
        "cnn.filter_lengths",
        "cnn.subword_max",
        "embed.method",
        "embed.subword_max",
        "mlp",
        "prepare.min_row",
        "seed",
    ]
    assert any(problem.endswith("not 'glove'") for problem in told)


@pytest.mark.parametrize(
    "changes",
    [{"cnn.batch_size": 512}, {"cnn.batch_size": 64, "cnn.min_steps": 7}, {"cnn.min_steps": None}],
)
def test_each_setting_that_the_message_on_batches_names_is_taken(changed, changes):
    (problem,) = problems(changed(changes))
    settings = re.findall(r"-S ([\w.]+)=(\w+)", problem)
    pairs = (
        [settings[i : i + 2] for i in range(0, len(settings), 2)] if len(settings) > 1 else [settings]
    )
    assert pairs
    for pair in pairs:
        given = {key: yaml.safe_load(value) for key, value in pair}
        parse_params(changed(changes | given))


@pytest.mark.parametrize("key", ["subword_max", "subword_min"])
def test_a_broken_bound_of_n_grams_is_told_once(changed, key):
    assert problems(changed({f"cnn.{key}": "six"})) == [
        f"cnn.{key}: Input should be a valid integer, not 'six'"
    ]


@pytest.mark.parametrize("value", [True, False, "partial"])
def test_embeddings_can_be_frozen_in_three_ways(changed, value):
    assert parse_params(changed({"cnn.freeze_embeddings": value})).cnn.freeze_embeddings is value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "is missing: run from the project's folder", id="no file"),
        pytest.param(b"", "must hold sections", id="empty file"),
        pytest.param(b"- seed\n- cnn\n", "must hold sections", id="a list"),
        pytest.param(b"seed: [1\n", "not readable as YAML", id="broken YAML"),
        pytest.param(b"seed: \xff\n", "not readable as YAML", id="not UTF-8"),
        pytest.param(b"seed: 1\n", "params.yaml has 6 problems:\n  compute: missing", id="no sections"),
    ],
)
def test_a_file_that_holds_no_parameters_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


def test_parameters_cannot_be_changed_after_they_were_checked(changed):
    params = parse_params(changed({}))
    assert isinstance(params, Params)
    with pytest.raises(ValueError, match="frozen"):
        params.cnn.epochs = 0


def test_names_of_files_that_no_file_has_are_refused(tmp_path):
    text = COMMITTED.read_text(encoding="utf-8")
    changed = re.sub(r"^(  source:) .*$", r'\1 "a\\0b"', text, flags=re.M)
    (tmp_path / "params.yaml").write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match=r"prepare\.source: holds a null character"):
        load_params(tmp_path / "params.yaml")
    named = re.sub(r"^(  source:) .*$", "\\1 a\u00f1o.csv", text, flags=re.M)
    (tmp_path / "params.yaml").write_text(named, encoding="utf-8")
    code = "import sys, pathlib, titles.models.registry as r; r.load_params(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "params.yaml")]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for variables, code in (({"PYTHONUTF8": "1"}, 0), (plain, 1)):
        done = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert ("PYTHONUTF8=1" in done.stderr) == bool(code)
