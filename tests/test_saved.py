import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from networks import (
    FREEZES,
    LABEL_NAMES,
    NAMES,
    NETWORKS,
    SIZES,
    SUBWORDS,
    TEXT_RULES,
    WITH_AND_WITHOUT,
    C,
    D,
    answers,
    encoded,
    fit,
    network,
    settings,
    vocabulary,
)
from saved_models import write_format_5
from titles.data.files import atomic_folder
from titles.data.subwords import Subwords
from titles.models.parts import saved

FILES = {"weights.safetensors", "model.json", "vocabulary.tsv", "labels.txt", "golden.json"}
KINDS = ("float32", "int8")


# Of -1 to -3 only the first stands in a title that the networks learn from.
WITH_UNKNOWN = [[-1], [-3, 2], [5, -2, 8], [11, 9]]


def model(name, freeze=False, subwords=None, saved_weights="float32"):
    net = network(name, freeze, dropout=0.5, subwords=subwords)
    for _ in fit(net, encoded(), encoded(), C, settings(name), 1, torch.device("cpu")):
        pass
    sizes = SIZES[name] | {"dropout": 0.5}
    used = {"batch_size": 3}
    made = saved.SavedModel(
        *(name, sizes, net.eval(), vocabulary(), LABEL_NAMES, TEXT_RULES, 0.75, 0.5, used, saved_weights)
    )
    made.round_as_saved()
    return made


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(saved_model, folder):
    with atomic_folder(folder) as partial:
        saved.write(saved_model, partial)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("freeze", FREEZES)
@pytest.mark.parametrize("subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_predicts_the_same_after_reading(tmp_path, name, freeze, subwords, kind):
    written = model(name, freeze, subwords, kind)
    write(written, tmp_path / "model")
    read = saved.read(tmp_path / "model", NETWORKS)
    assert not read.network.training
    assert torch.equal(answers(read.network), answers(written.network))
    assert torch.equal(answers(read.network, WITH_UNKNOWN), answers(written.network, WITH_UNKNOWN))
    assert (read.name, read.settings, read.vocabulary, read.labels, read.text, read.temperature) == (
        written.name,
        written.settings,
        written.vocabulary,
        written.labels,
        written.text,
        0.75,
    )
    assert read.calibrated_loss == 0.5
    assert read.training == {"batch_size": 3}
    assert read.saved_weights == kind
    write(read, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "model")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys())
def test_the_same_training_twice_gives_the_same_bytes_and_no_pickle(tmp_path, name, subwords):
    for folder in ("one", "other"):
        write(model(name, "partial", subwords), tmp_path / folder)
    found = contents(tmp_path / "one")
    assert found == contents(tmp_path / "other")
    assert set(found) == FILES
    # Pickles start with a protocol byte, and torch.save and numpy.savez with a zip header.
    assert not any(data.startswith((b"\x80", b"PK")) for data in found.values())
    with safe_open(tmp_path / "one" / "weights.safetensors", "pt") as tensors:
        of_words = {key for key in tensors.keys() if key.startswith("embedding.")}  # noqa: SIM118
    assert of_words == {"embedding.matrix_VD"} | ({"embedding.grams_RD"} if subwords else set())


def truncate(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def flip_header(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def change_tensors(change):
    def action(folder):
        tensors = load_file(folder / "weights.safetensors")
        change(tensors)
        save_file(tensors, folder / "weights.safetensors")

    return action


def lose_a_word(folder):
    path = folder / "vocabulary.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def other_sizes(name):
    return SIZES["mlp"] | ({"hidden_layers": [13, 15], "dropout": 0.5} if name == "mlp" else {})


def assert_refused(folder, action, message):
    """A saved model is refused by its name and in these words once it is damaged."""
    action(folder)
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        saved.read(folder, NETWORKS)
    assert str(folder) in str(caught.value)


DAMAGES = {
    "weights cut short": (truncate, "weights do not fit"),
    "weights without a header": (flip_header, "weights do not fit"),
    "a tensor less": (change_tensors(lambda t: t.pop("output.bias")), r"missing \['output.bias'\]"),
    "a tensor more": (
        change_tensors(lambda t: t.update(more=torch.ones(2))),
        r"unexpected \['more'\]",
    ),
    "no word vectors": (
        change_tensors(lambda t: t.pop("embedding.matrix_VD")),
        "do not fit.*embedding.matrix_VD",
    ),
    "other format": (
        lambda f: rewrite(f / "model.json", format=99),
        "format 99.*reads 5 and 6.*train again",
    ),
    "unknown architecture": (lambda f: rewrite(f / "model.json", architecture="rnn"), "'rnn'"),
    "a setting nobody knows": (
        lambda f: rewrite(f / "model.json", settings={"depth": 3}),
        "weights do not fit.*depth",
    ),
    "a text rule nobody knows": (lambda f: rewrite(f / "model.json", text={"stem": 1}), "stem"),
    "settings that are no mapping": (
        lambda f: rewrite(f / "model.json", settings=3),
        "weights do not fit",
    ),
    "no description": (lambda f: (f / "model.json").write_text("[]"), "model.json is damaged"),
    "cold": (lambda f: rewrite(f / "model.json", temperature=0), "damaged: temperature is 0"),
    "a word for a temperature": (lambda f: rewrite(f / "model.json", temperature="hot"), "damaged.*hot"),
    "less than no loss": (
        lambda f: rewrite(f / "model.json", calibrated_loss=-1),
        "damaged: calibrated_loss is -1",
    ),
    "a loss whose weight is 0": (
        lambda f: rewrite(f / "model.json", calibrated_loss=1e300),
        "damaged: calibrated_loss is 1e.300",
    ),
    "a loss of 400 digits": (
        lambda f: rewrite(f / "model.json", calibrated_loss=10**400),
        "damaged: calibrated_loss is 1000",
    ),
    "a temperature of 400 digits": (
        lambda f: rewrite(f / "model.json", temperature=10**400),
        "damaged: temperature is 1000",
    ),
    "a count of 5,000 digits": (
        lambda f: (f / "vocabulary.tsv").write_text(f"<pad>\t0\n<unk>\t{'9' * 5000}\n"),
        "vocabulary.tsv is damaged: line 2",
    ),
    "a training that is a list": (
        lambda f: rewrite(f / "model.json", training=[["batch_size", 3, 5]]),
        "damaged: training is",
    ),
    "half a description": (lambda f: (f / "model.json").write_text('{"form'), "model.json is damaged"),
    "a word less": (lose_a_word, "12 vectors for 11 words"),
    "a label more": (
        lambda f: (f / "labels.txt").write_text("".join(f"{x}\n" for x in [*LABEL_NAMES, "FOOD"])),
        r"weights do not fit: output.bias is \(4,\), not \(5,\)",
    ),
}


def change_tensor(name, change):
    return change_tensors(lambda t: t.update({name: change(t[name]).contiguous()}))


def scale_of_one_row(value):
    def change(scale_R):
        scale_R[3] = value
        return scale_R

    return change_tensor("embedding.grams_RD.scale", change)


DAMAGES_OF_INT8 = {
    "no scales": (
        change_tensors(lambda t: t.pop("embedding.matrix_VD.scale")),
        "do not fit.*embedding.matrix_VD.scale",
    ),
    "too few scales": (
        change_tensor("embedding.grams_RD.scale", lambda t: t[1:]),
        r"do not fit.*37 rows have scales of torch.bfloat16 \(36,\)",
    ),
    "scales of another type": (
        change_tensor("embedding.matrix_VD.scale", torch.Tensor.float),
        "do not fit.*scales of torch.float32",
    ),
    "a scale below zero": (scale_of_one_row(-1.0), "do not fit.*a scale is negative"),
    "a scale that is no number": (scale_of_one_row(torch.nan), "do not fit.*a scale is negative or not"),
    "an infinite scale": (scale_of_one_row(torch.inf), "do not fit.*not finite"),
    "a scale that is infinite once multiplied": (scale_of_one_row(3e38), "do not fit.*not finite"),
    "codes of another type": (
        change_tensor("embedding.matrix_VD", torch.Tensor.float),
        "do not fit.*torch.float32 of 2 dimensions, not int8",
    ),
    "codes in a row": (
        change_tensor("embedding.matrix_VD", torch.Tensor.flatten),
        "do not fit.*60 vectors for 12 words",
    ),
    "codes of padding": (
        change_tensor("embedding.matrix_VD", lambda t: t + 1),
        "do not fit.*padding is not zero",
    ),
    "weights of a layer in int8": (
        change_tensor("output.weight", lambda t: t.to(torch.int8)),
        "do not fit.*output.weight is torch.int8, saved_weights is int8",
    ),
    "weights of a layer in float64": (
        change_tensor("output.weight", torch.Tensor.double),
        "do not fit.*output.weight is torch.float64",
    ),
    "a weight that is no number": (
        change_tensor("output.bias", lambda t: t * torch.nan),
        "do not fit.*output.bias is not finite",
    ),
    "another kind of weights": (
        lambda f: rewrite(f / "model.json", saved_weights="int4"),
        "model.json is damaged: saved_weights is 'int4'",
    ),
    "called float32": (
        lambda f: rewrite(f / "model.json", saved_weights="float32"),
        "do not fit.*embedding.matrix_VD is torch.int8, saved_weights is float32",
    ),
    "a list of kinds": (
        lambda f: rewrite(f / "model.json", saved_weights=["int8"]),
        "model.json is damaged: saved_weights",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES_OF_INT8)
def test_quantised_weights_that_do_not_fit_are_refused_in_words(tmp_path, damage):
    folder = tmp_path / "model"
    write(model("mlp", subwords=SUBWORDS, saved_weights="int8"), folder)
    assert_refused(folder, *DAMAGES_OF_INT8[damage])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys())
def test_a_network_that_was_not_rounded_is_saved_as_one_that_was(tmp_path, name, subwords):
    plain = model(name, subwords=subwords)
    write(replace(plain, saved_weights="int8"), tmp_path / "one")
    before = answers(plain.network).detach().clone()
    replace(plain, saved_weights="int8").round_as_saved()
    assert not torch.equal(answers(plain.network), before)
    torch.testing.assert_close(answers(plain.network), before, rtol=0.03, atol=0.03)
    write(replace(plain, saved_weights="int8"), tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys())
def test_a_model_that_was_read_is_rounded_already(tmp_path, name, subwords):
    write(model(name, subwords=subwords, saved_weights="int8"), tmp_path / "one")
    loaded = saved.read(tmp_path / "one", NETWORKS)
    loaded.round_as_saved()
    write(loaded, tmp_path / "other")
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_quantised_weights_take_a_quarter_of_the_file(tmp_path):
    net = network("mlp", subwords=Subwords(3, 5, 20_000))
    for kind in KINDS:
        made = saved.SavedModel(
            "mlp", SIZES["mlp"] | {"dropout": 0.0}, net, vocabulary(), LABEL_NAMES, TEXT_RULES
        )
        write(replace(made, saved_weights=kind), tmp_path / kind)
    sizes = [(tmp_path / kind / "weights.safetensors").stat().st_size for kind in KINDS]
    # A scale has two bytes, which counts for vectors as short as these.
    assert sizes[1] < sizes[0] * (D + 2) / (4 * D) * 1.05


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("layer", ["embedding.trainable_VD", "embedding.grams_RD", "output.weight"])
def test_weights_that_are_not_finite_are_not_quantised(tmp_path, value, layer):
    net = network("mlp", subwords=SUBWORDS)
    net.get_parameter(layer).data[2, 1] = value
    broken = saved.SavedModel(
        "mlp", {}, net, vocabulary(), LABEL_NAMES, TEXT_RULES, saved_weights="int8"
    )
    with pytest.raises(ValueError, match="weights are not finite"):
        write(broken, tmp_path / "model")
    with pytest.raises(ValueError, match="weights are not finite"):
        broken.round_as_saved()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_does_not_change_with_its_file(tmp_path, kind):
    write(model("cnn", subwords=SUBWORDS, saved_weights=kind), tmp_path / "model")
    read = saved.read(tmp_path / "model", NETWORKS)
    before = answers(read.network, WITH_UNKNOWN).detach().clone()
    with (tmp_path / "model" / "weights.safetensors").open("r+b") as file:  # in place
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\1" * size)
    assert torch.equal(answers(read.network, WITH_UNKNOWN), before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subwords", WITH_AND_WITHOUT.values(), ids=WITH_AND_WITHOUT.keys())
def test_a_model_of_the_format_before_is_read_with_a_warning(tmp_path, capsys, name, subwords):
    written = model(name, subwords=subwords)
    write_format_5(written, tmp_path / "model")
    read = saved.read(tmp_path / "model", NETWORKS)
    assert torch.equal(answers(read.network, WITH_UNKNOWN), answers(written.network, WITH_UNKNOWN))
    assert (read.saved_weights, read.temperature) == ("float32", 0.75)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: {tmp_path / 'model'} is of an older format, without examples of titles"
    )
    write(read, tmp_path / "again")
    saved.read(tmp_path / "again", NETWORKS)
    assert capsys.readouterr().err == ""


DAMAGES_OF_LETTERS = {
    "no vectors of n-grams": (
        change_tensors(lambda t: t.pop("embedding.grams_RD")),
        "do not fit.*embedding.grams_RD",
    ),
    "n-grams that the description lacks": (
        lambda f: rewrite(f / "model.json", subwords=None),
        r"unexpected \['embedding.grams_RD'\]",
    ),
    "other buckets": (
        lambda f: rewrite(f / "model.json", subwords={"shortest": 4, "longest": 5, "buckets": 36}),
        r"weights do not fit.*vectors of n-grams are \(37, 5\)",
    ),
    "half the n-grams described": (
        lambda f: rewrite(f / "model.json", subwords={"shortest": 4}),
        "model.json is damaged.*longest",
    ),
    "n-grams of three billion letters": (
        lambda f: rewrite(
            f / "model.json", subwords={"shortest": 4, "longest": 3 * 10**9, "buckets": 37}
        ),
        "model.json is damaged.*out of range",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES_OF_LETTERS)
def test_letters_that_do_not_fit_are_refused_in_words(tmp_path, damage):
    folder = tmp_path / "model"
    write(model("mlp", subwords=SUBWORDS), folder)
    assert_refused(folder, *DAMAGES_OF_LETTERS[damage])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_in_words(tmp_path, damage):
    folder = tmp_path / "model"
    write(model("mlp"), folder)
    assert_refused(folder, *DAMAGES[damage])


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_size_or_network_are_refused(tmp_path, name):
    write(model(name), tmp_path / "model")
    rewrite(tmp_path / "model" / "model.json", architecture="mlp", settings=other_sizes(name))
    with pytest.raises(ValueError, match="its weights do not fit"):
        saved.read(tmp_path / "model", NETWORKS)


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_missing_file_is_named(tmp_path, file):
    write(model("cnn"), tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    with pytest.raises(ValueError, match=file):
        saved.read(tmp_path / "model", NETWORKS)


@contextmanager
def another_user():
    """Rights of a user who is not the owner; those of the owner suffice where files are not readable."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_file_that_may_not_be_read_is_not_told_missing(file):
    with tempfile.TemporaryDirectory() as place:  # pytest's folders are closed to others
        Path(place).chmod(0o755)
        folder = Path(place) / "model"
        write(model("cnn"), folder)
        (folder / file).chmod(0)
        with another_user(), pytest.raises(PermissionError, match=f"Permission denied: .*{file}"):
            saved.read(folder, NETWORKS)


def test_a_model_can_be_read_by_others_if_the_umask_lets_them():
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        before = os.umask(0o022)
        try:
            write(model("cnn"), Path(place) / "model")
        finally:
            os.umask(before)
        with another_user():
            saved.read(Path(place) / "model", NETWORKS)


def test_a_write_that_fails_leaves_the_old_model(tmp_path):
    write(model("mlp"), tmp_path / "model")
    before = contents(tmp_path / "model")
    broken = saved.SavedModel(
        "mlp", {"dropout": object()}, network("mlp"), vocabulary(), LABEL_NAMES, TEXT_RULES
    )
    with pytest.raises(TypeError):
        write(broken, tmp_path / "model")
    assert contents(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
