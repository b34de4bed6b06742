"""A trained network as ONNX: the same logits from inputs that anyone can make.

Networks read batches of distinct words, with compiled loops on the CPU. ONNX gets `Network.logits`,
which uses standard operators. The n-grams of a vocabulary word are added to its vector beforehand, as
they no longer change; only unknown words still come with their n-grams.

Legend: V words of the vocabulary, D dimensions of a vector, B titles, L words, U unknown words,
G n-grams of a word, R rows of the table of n-grams, C categories.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Environment, PackageLoader
from torch import Tensor, nn

from titles.data.batching import Batcher
from titles.data.contract import LABELS_FILE, PAD, UNK, VOCABULARY_FILE
from titles.data.files import write_json
from titles.data.vocabulary import write_labels
from titles.models.parts import golden, saved
from titles.models.parts.embedding import WordEmbedding, embedding_of
from titles.models.parts.network import Network
from titles.models.registry import NETWORKS
from titles.predict.classifier import Classifier
from titles.serve.onnx_inputs import ENCODING_FILE, FORMAT, MODEL_FILE, UNKNOWN_GRAMS, WORDS, Encoder

MARK = ENCODING_FILE
# One file of Protocol Buffers holds less than 2 GiB; what is not weights takes far less than the rest.
MOST_BYTES = 2**31 - 2**24
EXAMPLES = [
    "Funda Para Celular Samsung J7",
    "Tênis Infantil 2,5 cm ENVÍO GRATIS",
    "ñandú",
    "Xqztw-99 100% 手机壳 😀",
]
_AGREE = 1e-4


def write(folder: Path, out: Path) -> None:
    """Write the network of a model folder into `out`, an existing folder, and compare both's logits.

    Raises:
        ValueError: `folder` is missing, damaged or of an unsupported format; packages are missing; the
            network is too large for one file; or the logits differ.
    """
    model = saved.read(folder, NETWORKS)
    words = embedding_of(model.network).subwords
    subwords = words.subwords if words else None
    encoder = Encoder(model.vocabulary, model.labels, model.text, subwords)
    _save(PlainNetwork(model.network), encoder, out / MODEL_FILE)
    model.vocabulary.write(out / VOCABULARY_FILE)
    write_labels(model.labels, out / LABELS_FILE)
    golden.write(out, model.text, model.vocabulary, subwords)
    # A specification for encoders in other languages, with examples.
    environment = Environment(loader=PackageLoader("titles.serve"))  # noqa: S701  no HTML
    description = environment.get_template(ENCODING_FILE).render(
        format=FORMAT, architecture=model.name, encoder=encoder, examples=EXAMPLES
    )
    write_json(out / ENCODING_FILE, json.loads(description))
    _compare(model, out)


class PlainNetwork(nn.Module):
    """A network as a module that takes words (B, L) and, if it reads letters, unknown_grams (U, G), as
    `onnx_inputs.Encoder` makes them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.embedding = PlainEmbedding(network.embedding)
        # A copy without the embedding, whose tables would be exported too.
        self.network = copy.copy(network)
        self.network._modules = {k: v for k, v in network._modules.items() if k != "embedding"}
        self.eval()

    def forward(self, words_BL: Tensor, ngrams_UG: Tensor | None = None) -> Tensor:
        """Logits (B, C)."""
        return self.network.logits(self.embedding(words_BL, ngrams_UG), words_BL != PAD)


class PlainEmbedding(nn.Module):
    """`models.parts.embedding.WordEmbedding` with the n-grams of known words added up beforehand."""

    words_VD: Tensor
    grams_RD: Tensor

    @torch.no_grad()
    def __init__(self, embedding: WordEmbedding) -> None:
        super().__init__()
        words_VD = embedding.matrix()
        grams_RD = embedding.ngram_table()
        if grams_RD is not None and embedding.subwords is not None:
            buckets, ends = map(torch.from_numpy, embedding.subwords.ngrams)
            sums_VD = F.embedding_bag(buckets.long(), grams_RD, F.pad(ends[:-1], (1, 0)), mode="sum")
            counts_V = ends.diff(prepend=ends.new_zeros(1)).clamp(min=1)
            words_VD = words_VD + sums_VD * counts_V[:, None].float().rsqrt()
            # Row 0 is padding.
            self.register_buffer("grams_RD", F.pad(grams_RD, (0, 0, 1, 0)))
        self.register_buffer("words_VD", words_VD)

    def forward(self, words_BL: Tensor, ngrams_UG: Tensor | None) -> Tensor:
        """Vectors (B, L, D), zeros after a title's last word."""
        if ngrams_UG is None:
            return F.embedding(words_BL, self.words_VD)
        sums_UD = F.embedding(ngrams_UG, self.grams_RD).sum(dim=1)
        counts_U1 = (ngrams_UG != 0).sum(dim=1, keepdim=True).clamp(min=1)
        # A row more, to be looked at where no word is unknown.
        unknown_UD = F.pad(self.words_VD[UNK] + sums_UD * counts_U1.float().rsqrt(), (0, 0, 1, 0))
        known = len(self.words_VD)
        return torch.where(
            (words_BL >= known)[:, :, None],
            F.embedding((words_BL - known + 1).clamp(min=0), unknown_UD),
            F.embedding(words_BL.clamp(max=known - 1), self.words_VD),
        )


def _save(network: nn.Module, encoder: Encoder, path: Path) -> None:
    size = sum(t.nbytes for t in network.state_dict().values())
    if size > MOST_BYTES:
        raise ValueError(
            f"the network takes {size / 2**30:.1f} GiB, a file of ONNX holds less than 2: train with a "
            "smaller max_vocabulary, dimension or subword_buckets"
        )
    try:
        import onnx
        import onnxruntime  # noqa: F401  compares what was written
        import onnxscript  # noqa: F401  the exporter of torch needs it
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed: `make install-dev`, "
            "or pip install onnx onnxruntime onnxscript"
        ) from None
    axes: dict[str, dict[int, Any]] = {WORDS: {0: "titles", 1: "words"}}
    if encoder.subwords:
        axes[UNKNOWN_GRAMS] = {0: "unknown", 1: "ngrams"}
    with _quiet():
        program = torch.onnx.export(
            network,
            # torch takes an axis of size one to be constant.
            tuple(torch.ones(2 + 2 * i, 3 + 2 * i, dtype=torch.int64) for i in range(len(axes))),
            dynamo=True,
            dynamic_shapes=tuple(axes.values()),
            input_names=list(axes),
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    made = program.model_proto
    # The file and line of this machine where each node was made.
    graph = made.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, graph):
        del part.metadata_props[:]
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's messages about itself and about packages that are not needed here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _compare(model: saved.SavedModel, folder: Path) -> None:
    from onnxruntime import InferenceSession

    cpu = torch.device("cpu")
    session = InferenceSession(folder / MODEL_FILE, providers=["CPUExecutionProvider"])
    encode = Encoder.read(folder)
    titles = [title for title in EXAMPLES if encode.words([title])[0]]
    (found,) = session.run(["logits"], encode(titles))
    encoded = Classifier([model], cpu).encode(titles)
    batcher = Batcher(encoded, embedding_of(model.network).subwords, cpu)
    with torch.inference_mode():
        wanted = model.network(batcher.batch(np.arange(len(titles)))).numpy()
    furthest = np.abs(found - wanted).max()
    if not furthest <= _AGREE * max(1, np.abs(wanted).max()):
        raise ValueError(f"{folder}: ONNX Runtime gives different logits, by up to {furthest:.1e}")
