"""Word vectors as a network's first layer, with the choice of which rows learn.

Legend: V words of the vocabulary, D dimensions of a vector, U words looked up.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titles.contract import PAD

Freeze = bool | Literal["partial"]


class WordEmbedding(nn.Module):
    """Looks up a vector for each word id.

    Rows that stay lie in a buffer and rows that learn in a parameter, so that no gradient, momentum or
    weight decay can reach a frozen row. PAD is a zero row that stays.

    Args:
        matrix_VD: float32 vectors.
        has_vector_V: rows that "partial" keeps; the others learn (the course's "semi-freeze").
        freeze: True keeps all rows, False lets all but PAD learn.
    """

    frozen_FD: Tensor
    row_V: Tensor

    def __init__(self, matrix_VD: Tensor, has_vector_V: Tensor, freeze: Freeze) -> None:
        super().__init__()
        frozen_V = has_vector_V.clone() if freeze == "partial" else torch.full_like(has_vector_V, freeze)
        frozen_V[PAD] = True
        # A word's row in the two tables laid end to end, the frozen one first.
        row_V = torch.empty(len(frozen_V), dtype=torch.int64)
        row_V[frozen_V] = torch.arange(int(frozen_V.sum()))
        row_V[~frozen_V] = torch.arange(int(frozen_V.sum()), len(frozen_V))
        self.register_buffer("row_V", row_V)
        self.register_buffer("frozen_FD", matrix_VD[frozen_V].clone())
        self.learning_VD = nn.Parameter(matrix_VD[~frozen_V].clone()) if not frozen_V.all() else None

    @property
    def dimension(self) -> int:
        return self.frozen_FD.shape[1]

    def forward(self, words_U: Tensor) -> Tensor:
        """Vectors of shape (U, D)."""
        row_U = self.row_V[words_U]
        if self.learning_VD is None:
            return F.embedding(row_U, self.frozen_FD)
        first = len(self.frozen_FD)
        frozen_UD = F.embedding(row_U.clamp(max=first - 1), self.frozen_FD)
        learning_UD = F.embedding((row_U - first).clamp(min=0), self.learning_VD)
        return torch.where((row_U >= first)[:, None], learning_UD, frozen_UD)

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """All vectors in the order of the vocabulary, (V, D)."""
        return self.forward(torch.arange(len(self.row_V), device=self.row_V.device))
