"""Networks as ONNX: ONNX Runtime says what the classifier says."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imports import SRC
from networks import NAMES, SUBWORDS, C, V
from saved_models import LETTERS, RULES, model, write_models
from titles.cli import main
from titles.data.batching import Batcher
from titles.data.subwords import Subwords
from titles.models.parts.embedding import embedding_of
from titles.models.parts.network import Network
from titles.predict.classifier import Classifier
from titles.serve import onnx_model
from titles.serve.onnx_inputs import Encoder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.pipeline  # torch loads its compiler to export

CPU = torch.device("cpu")
BATCHES = {
    "one title of one known word": ["word3"],
    "one title of one unknown word": ["unheard"],
    "known words": ["word2 word3 word4", "word5", "word8 word2 word9 word10 word3 word6 word7"],
    "unknown words": ["unheard of", "unheard", "ñ", "手机壳"],
    "both": ["word4 unheard word4", "x", "word11 😀 9,5 unheard unheard word2", "Word5  WORD3"],
    "a word too short for n-grams": ["a", "a b", "word2 a"],
    "the longest": ["word3 " * 50, "y" * 80, "word2"],
    "letters of a title that is cut": ["word3 " * 14 + "un heard"],
}


class Exported:
    """A network's folder and its export, and the two ways to its logits."""

    def __init__(self, folder: Path, name: str) -> None:
        out = folder / f"{name}.onnx"
        arguments = ["--model", name, "--models", str(folder), "--out", str(out)]
        assert main(["export", "onnx", *arguments]) == 0
        self.out = out
        self.encoder = Encoder.read(out)
        self.session = onnxruntime.InferenceSession(out / "model.onnx")
        self.classifier = Classifier.read(folder, name, CPU)

    def logits(self, titles: Sequence[str]) -> NDArray[np.float32]:
        (found,) = self.session.run(None, self.encoder(titles))
        return np.asarray(found)

    def wanted(self, titles: Sequence[str]) -> NDArray[np.float32]:
        (network,) = self.classifier.networks
        batcher = Batcher(self.classifier.encode(titles), embedding_of(network).subwords, CPU)
        with torch.inference_mode():
            return np.asarray(network(batcher.batch(np.arange(len(titles)))))

    def assert_same(self, titles: Sequence[str]) -> None:
        found, wanted = self.logits(titles), self.wanted(titles)
        assert found.shape == (len(titles), C)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        ranked = self.classifier.top(titles, C).categories_NK
        np.testing.assert_array_equal(np.argsort(-found, axis=1, kind="stable"), ranked)


@pytest.fixture(scope="module", params=["words", "letters"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    subwords = {"words": None, "letters": LETTERS}[request.param]
    return write_models(tmp_path_factory.mktemp("trained") / "models", subwords)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Networks that read letters."""
    return write_models(tmp_path / "models")


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, folder: Path) -> Exported:
    return Exported(folder, request.param)


@pytest.mark.parametrize("titles", BATCHES.values(), ids=BATCHES.keys())
def test_logits_and_ranking_are_those_of_the_classifier(exported: Exported, titles: list[str]) -> None:
    exported.assert_same(titles)


def test_logits_are_the_same_in_batches_of_any_size_and_mixture(exported: Exported) -> None:
    source = random.Random(4)
    words = [f"word{number}" for number in range(2, 12)] + ["unheard", "ñandú", "x", "手机壳", "ab12"]
    for size in (2, 3, 17, 300):
        exported.assert_same(
            [" ".join(source.choices(words, k=source.randint(1, 20))) for _ in range(size)]
        )


def test_padding_never_changes_logits(exported: Exported) -> None:
    titles = BATCHES["both"]
    inputs = exported.encoder(titles)
    padded = {name: np.pad(values, ((0, 0), (0, 4))) for name, values in inputs.items()}
    if "unknown_grams" in padded:  # unknown words that no title has
        padded["unknown_grams"] = np.pad(padded["unknown_grams"], ((0, 2), (0, 0)), constant_values=3)
    (found,) = exported.session.run(None, padded)
    np.testing.assert_allclose(found, exported.logits(titles), rtol=0, atol=1e-6)


def test_a_title_without_words_leaves_the_others_alone_and_is_a_row_of_zeros(exported: Exported) -> None:
    titles = ["", "word4 unheard", "😀"]
    assert (exported.encoder(titles)["words"] == 0).all(axis=1).tolist() == [True, False, True]
    found = exported.logits(titles)
    np.testing.assert_allclose(found, exported.wanted(titles), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1:2], exported.wanted(["word4 unheard"]), rtol=0, atol=1e-4)
    assert exported.logits([""]).shape == (1, C)


def test_unknown_words_are_told_apart_only_by_letters(exported: Exported) -> None:
    found = exported.logits(["unheard", "nuevo"])
    same = np.allclose(found[0], found[1], atol=1e-6)
    assert same == (exported.encoder.subwords is None)


def test_the_folder_holds_what_a_reader_needs(exported: Exported) -> None:
    assert sorted(path.name for path in exported.out.iterdir()) == [
        "encoding.json",
        "golden.json",
        "labels.txt",
        "model.onnx",
        "vocabulary.tsv",
    ]
    told = json.loads((exported.out / "encoding.json").read_text(encoding="utf-8"))
    assert (told["format"], told["words"], told["categories"]) == (2, V, C)
    assert told["text"] == exported.encoder.text.model_dump()
    inputs = {given.name for given in exported.session.get_inputs()}
    assert inputs == set(told["inputs"]) == set(exported.encoder(["x"]))
    assert [given.name for given in exported.session.get_outputs()] == list(told["outputs"])
    for example in told["examples"]:
        made = exported.encoder([example["title"]])
        assert example["inputs"] == {name: values.tolist() for name, values in made.items()}


def test_the_hash_is_the_one_that_is_described() -> None:
    subwords = Subwords(2, 3, 1009)

    def bucket(letters: str) -> int:
        h = 2166136261
        for c in map(ord, letters):
            h = ((h ^ c) * 16777619) % 2**32
        return (h ^ (h >> 15)) % 1009

    text = "<ñu😀>"
    grams = [text[i : i + n] for n in (2, 3) for i in range(len(text) - n + 1)]
    assert sorted(subwords.of(["ñu😀"]).buckets) == sorted(map(bucket, grams))


def test_the_same_network_gives_the_same_bytes_which_name_no_file(letters: Path, tmp_path: Path) -> None:
    files = []
    for number in range(2):
        out = tmp_path / str(number)
        out.mkdir()
        onnx_model.write(letters / "cnn", out)
        files.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert files[0] == files[1]
    for place in (str(SRC), str(Path(torch.__file__).parent), str(tmp_path), ".py"):
        assert place.encode() not in files[0]["model.onnx"]


def test_nothing_is_printed_but_where_it_is(letters: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "titles.cli", "export", "onnx", "--models", str(letters)]
    ran = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", f"{out} holds the cnn as ONNX\n")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subwords", [None, SUBWORDS], ids=["words", "letters"])
def test_vectors_that_stay_and_vectors_that_learn_give_the_same_table(name: str, subwords: Any) -> None:
    net = model(name, subwords).network
    table = onnx_model.PlainEmbedding(embedding_of(net)).words_VD
    assert table.shape == (V, embedding_of(net).dimension)
    assert not table[0].any()


def test_the_encoder_needs_no_torch() -> None:
    script = (
        "import sys, titles.serve.onnx_inputs\n"
        "sys.exit(sorted({'torch', 'numba', 'mlflow'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def replace(path: Path, **values: Any) -> None:
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(told | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda out: (out / "encoding.json").unlink(), "encoding.json is missing: export with"),
        (lambda out: (out / "vocabulary.tsv").unlink(), "vocabulary.tsv is missing"),
        (lambda out: (out / "encoding.json").write_text("{"), "encoding.json is damaged"),
        (
            lambda out: replace(out / "encoding.json", format=3),
            "format 3, this version reads 1 and 2: export again",
        ),
        (
            lambda out: replace(out / "encoding.json", words=99),
            "vocabulary.tsv has 12 lines, .* says 99",
        ),
        (lambda out: replace(out / "encoding.json", categories=9), "labels.txt has 4 lines, .* says 9"),
        (
            lambda out: replace(out / "encoding.json", subwords={"longest": 3}),
            "encoding.json is damaged",
        ),
        (lambda out: replace(out / "encoding.json", text={}), "encoding.json is damaged"),
        (lambda out: (out / "golden.json").unlink(), "golden.json is missing: run .* export again"),
        (
            lambda out: replace(
                out / "encoding.json", text=RULES.model_dump() | {"drop_seller_noise": True}
            ),
            "titles read otherwise than now: of .*: export again",
        ),
    ],
)
def test_an_export_that_is_not_whole_is_refused_in_words(
    exported: Exported, tmp_path: Path, damage: Any, told: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported.out, out)
    damage(out)
    with pytest.raises(ValueError, match=told):
        Encoder.read(out)


def test_an_export_of_the_format_before_is_read_with_a_warning(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported.out, out)
    replace(out / "encoding.json", format=1)
    (out / "golden.json").unlink()
    titles = BATCHES["both"]
    for name, values in Encoder.read(out)(titles).items():
        assert np.array_equal(values, exported.encoder(titles)[name])
    assert capsys.readouterr().err.startswith(f"warning: {out} is of an older format")


def test_a_network_that_no_file_can_hold_is_refused(
    letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_model, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="a file of ONNX holds less than 2: train with a smaller"):
        onnx_model.write(letters / "cnn", tmp_path)


def test_an_export_that_disagrees_is_refused(
    letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(onnx_model.PlainNetwork):
        def __init__(self, network: Network) -> None:
            super().__init__(network)
            self.embedding.words_VD *= 1.01

    monkeypatch.setattr(onnx_model, "PlainNetwork", Wrong)
    with pytest.raises(ValueError, match="ONNX Runtime gives different logits, by up to"):
        onnx_model.write(letters / "cnn", tmp_path)


def test_missing_packages_are_named(
    letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match="onnxscript is not installed: `make install-dev`, or pip"):
        onnx_model.write(letters / "cnn", tmp_path)
