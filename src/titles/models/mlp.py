"""A multilayer perceptron over means of a title's word vectors.

Legend: B titles, L words, T their product, R rows of a table, D dimensions, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from titles.data.contract import Batch
from titles.models.parts.embedding import WordEmbedding
from titles.models.parts.layers import Dropout, embedding_bag
from titles.models.parts.network import Network, Output
from titles.models.parts.products import Linear
from titles.params import MOST_WORDS, Sizes, Training


class MLPSection(Training):
    """The section `mlp` of params.yaml."""

    most_dropout = 0.5

    leading_words: Annotated[int, Field(ge=0, le=MOST_WORDS)]
    hidden_layers: Sizes

    @field_validator("hidden_layers")
    @classmethod
    def _enough_for_heads(cls, hidden_layers: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        heads = info.data.get("heads", "auto")
        if heads != "auto" and hidden_layers[-1] < heads:
            raise ValueError(f"ends with {hidden_layers[-1]}, which is less than heads = {heads}")
        return hidden_layers

    def beyond_titles(self, longest: int) -> dict[str, str]:
        if self.leading_words <= longest:
            return {}
        return {"leading_words": f"no title has more than {longest} words"}

    def check_titles(self, max_words: int) -> None:
        if self.leading_words > max_words:
            raise ValueError(
                f"leading_words is {self.leading_words}, but titles are cut at "
                f"prepare.max_words = {max_words}"
            )


class TitleMLP(Network):
    """The mean over the words of a title, that over its first words beside it, then hidden layers.

    A mean does not say in which order the words stood, and titles begin with what is sold: "capa para
    celular" is a cover. Padding is left out of both means.

    Args:
        leading_words: how many of the first words have a mean of their own; 0 leaves that out.
        hidden_layers: units of each layer.
        dropout: share of units dropped in training after each layer.
    """

    Section = MLPSection
    summary = "means of word vectors, hidden layers"

    def __init__(
        self,
        embedding: WordEmbedding,
        classes: int,
        *,
        leading_words: int,
        hidden_layers: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__(embedding, classes)
        self.leading_words = leading_words
        means = 2 if leading_words else 1
        sizes = [means * embedding.dimension, *hidden_layers]
        self.hidden = nn.ModuleList(Linear(size, following) for size, following in pairwise(sizes))
        self.dropout = Dropout(dropout)
        self.output = Output(sizes[-1], classes)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        table_RD, row_T = self.embedding.table_of(batch)
        row_BL, is_token_BL = row_T.view(batch.index_BL.shape), batch.index_BL > 0
        means = [_mean(_sum_of_rows(table_RD, row_BL), is_token_BL)]
        if leading := self.leading_words:
            sum_BD = _sum_of_rows(table_RD, row_BL[:, :leading])
            means.append(_mean(sum_BD, is_token_BL[:, :leading]))
        return self._classify(means)

    def logits(self, vectors_BLD: Tensor, is_token_BL: Tensor) -> Tensor:
        means = [_mean(vectors_BLD.sum(dim=1), is_token_BL)]
        if self.leading_words:
            # Masked, not cut: a title can be shorter.
            leads_L = torch.arange(vectors_BLD.shape[1], device=vectors_BLD.device) < self.leading_words
            means.append(_mean((vectors_BLD * leads_L[:, None]).sum(dim=1), is_token_BL & leads_L))
        return self._classify(means)

    def _classify(self, means: list[Tensor]) -> Tensor:
        hidden = torch.cat(means, dim=1)
        for layer in self.hidden:
            hidden = self.dropout(F.relu(layer(hidden)))
        logits_BC: Tensor = self.output(hidden)
        return logits_BC


def _sum_of_rows(table_RD: Tensor, row_BL: Tensor) -> Tensor:
    """(B, D); the row of padding is zero and adds nothing."""
    titles, words = row_BL.shape
    end_B = torch.arange(words, (titles + 1) * words, words, device=row_BL.device)
    return embedding_bag(table_RD, row_BL.flatten(), end_B)


def _mean(sum_BD: Tensor, is_token_BL: Tensor) -> Tensor:
    """(B, D), of the tokens that are there; of none, zeros."""
    return sum_BD / is_token_BL.sum(dim=1, keepdim=True).clamp(min=1)
