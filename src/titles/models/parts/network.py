"""The contract of a network.

Legend: B titles, L tokens of a title, D dimensions of a word vector, U units before the last layer,
C categories, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.data.contract import Batch
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.products import Linear, linear
from titles.params import Training


class Output(Linear):
    """The last layer of a network, from U units to the logits of C categories.

    In training it can have several heads: each has a share of the units, as if all others were dropped
    and its own raised to make up for them, and is trained to be right without the rest. They differ, as
    the members of an ensemble do, and prediction averages them at the price of one layer: their mean is
    the layer itself. After Lee et al. (2015), "Why M heads are better than one", arXiv:1511.06314.
    """

    heads = 1

    def divide(self, heads: int) -> None:
        """Train with so many heads.

        Raises:
            ValueError: there are fewer units.
        """
        if heads > self.in_features:
            raise ValueError(f"heads is {heads}, but the last layer has {self.in_features} units")
        self.heads = heads

    def forward(self, given_BU: Tensor) -> Tensor:
        """Logits (B, C); in training (H * B, C), those of all titles by the first head first."""
        if not self.training or self.heads == 1:
            return super().forward(given_BU)
        units = given_BU.tensor_split(self.heads, dim=1)
        weights = self.weight.tensor_split(self.heads, dim=1)
        return torch.cat(
            [
                linear(self.heads * part, weight, self.bias)
                for part, weight in zip(units, weights, strict=True)
            ]
        )


class Network(nn.Module):
    """Classifies titles by the vectors of their tokens.

    A subclass takes the embedding, the number of classes and, as keyword arguments, `dropout` and the
    parameters that only its section of params.yaml has. It assigns its last layer, an `Output`, to
    `output`, and implements `logits`. A faster `forward` is optional and has to give the same logits.

    Section: schema of its section of params.yaml, a subclass of `Training`.
    summary: the architecture in one line, for the model card.
    embedding: the first layer. output: the last one; calibration divides its weights by the temperature.
    """

    Section: ClassVar[type[Training]]
    summary: ClassVar[str]
    output: Output

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


def output_of(network: nn.Module) -> Output:
    """The last layer of a network; raises TypeError if it is no `Output`."""
    output = network.output
    if not isinstance(output, Output):
        raise TypeError(f"{type(network).__name__}.output is a {type(output).__name__}, not an Output")
    return output
