"""The contract of a network.

Legend: B titles, L tokens of a title, D dimensions of a word vector, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.data.contract import Batch
from titles.models.parts.embedding import WordEmbedding
from titles.params import Training


class Network(nn.Module):
    """Classifies titles by the vectors of their tokens.

    A subclass takes the embedding, the number of classes and, as keyword arguments, `dropout` and the
    parameters that only its section of params.yaml has. It assigns `output`, its last layer, and
    implements `logits`. A faster `forward` is optional and has to give the same logits.

    Section: schema of its section of params.yaml, a subclass of `Training`.
    summary: the architecture in one line, for the model card.
    embedding: the first layer. output: the last one; calibration divides its weights by the temperature.
    """

    Section: ClassVar[type[Training]]
    summary: ClassVar[str]
    output: nn.Linear

    def __init__(self, embedding: WordEmbedding, classes: int, **architecture: Any) -> None:
        super().__init__()
        self.embedding = embedding

    @classmethod
    def planned(cls, embedding: WordEmbedding, classes: int, architecture: Mapping[str, Any]) -> Network:
        """The network without the memory of its weights, except the embedding: their shapes."""
        with torch.device("meta"):
            return cls(embedding, classes, **architecture)

    def logits(self, vectors_BLD: Tensor, is_token_BL: Tensor) -> Tensor:
        """Logits (B, C), by standard operators of torch, which ONNX can hold.

        Args:
            vectors_BLD: word vectors, zeros after the last token of a title.
            is_token_BL: False after the last token. Of a title without a token, logits have to be
                finite.
        """
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        vectors_BLD = F.embedding(batch.index_BL, self.embedding(batch))
        return self.logits(vectors_BLD, batch.index_BL > 0)
