"""Loops that torch has no operator for, compiled for the CPU at their first call.

Each function computes the part `first` to `last` of its output. Threads get disjoint parts, and the
order of additions within a part is fixed: results do not depend on the number of threads.

Legend: B titles or bags, L tokens, C columns, F filters, T rows looked up, R rows of a table, D
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from titles.data.compiling import compiled

_Floats = NDArray[np.floating[Any]]
_Ints = NDArray[np.integer[Any]]

# Values below which another thread costs more than it saves.
_WORTH_A_THREAD = 50_000


def in_parts(work: Callable[[int, int], None], parts: int, numbers: int) -> None:
    """Call `work(first, last)` on ranges that cover 0 to `parts`, in as many threads as torch uses.

    Args:
        numbers: number of values that the work reads in all.
    """
    threads = min(torch.get_num_threads(), parts, 1 + numbers // _WORTH_A_THREAD)
    if threads <= 1:
        work(0, parts)
        return
    bounds = [parts * thread // threads for thread in range(threads + 1)]
    others = [_pool().submit(work, a, b) for a, b in pairwise(bounds[1:])]
    work(bounds[0], bounds[1])
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="titles-kernels")


@compiled
def max_over_time_conv(
    rows_RC: _Floats,
    index_BL: _Ints,
    lengths: _Ints,
    filters: int,
    greatest_BF: _Floats,
    start_BF: _Ints,
    first: int,
    last: int,
) -> None:
    """`layers.max_over_time_conv` of titles `first` to `last`, and the start of each winning window."""
    sums_LF = np.empty((index_BL.shape[1], greatest_BF.shape[1]), rows_RC.dtype)
    for title in range(first, last):
        place_L = index_BL[title]
        sums_LF[:] = 0
        # Each word's row is read once, from end to end, and added to all windows that the word is in.
        for word in range(len(place_L)):
            if place_L[word] == 0:
                continue
            row_C = rows_RC[place_L[word]]
            column, out = 0, 0
            for length in lengths:
                for within in range(length):
                    if within <= word:
                        sum_F = sums_LF[word - within, out : out + filters]
                        added_F = row_C[column : column + filters]
                        for number in range(filters):
                            sum_F[number] += added_F[number]
                    column += filters
                out += filters
        greatest_F, start_F = greatest_BF[title], start_BF[title]
        greatest_F[:] = -np.inf
        start_F[:] = 0  # of a title without words, whose maximum stays at -inf
        for word in range(len(place_L)):
            if place_L[word] == 0:
                continue
            sum_F = sums_LF[word]
            for number in range(len(sum_F)):
                # NaN stays, so that it is noticed.
                if sum_F[number] > greatest_F[number] or sum_F[number] != sum_F[number]:
                    greatest_F[number] = sum_F[number]
                    start_F[number] = word


@compiled
def max_over_time_conv_backward(
    gradient_BF: _Floats,
    start_BF: _Ints,
    index_BL: _Ints,
    lengths: _Ints,
    filters: int,
    rows_RC: _Floats,
    first: int,
    last: int,
) -> None:
    """Add the gradient of each title's greatest windows to the rows of their words, for the filters
    `first` to `last` of each length."""
    titles, words = index_BL.shape
    for title in range(titles):
        place_L = index_BL[title]
        column, out = 0, 0
        for length in lengths:
            gradient_F, start_F = gradient_BF[title, out:], start_BF[title, out:]
            for within in range(length):
                for number in range(first, last):
                    word = start_F[number] + within
                    if word < words and place_L[word] > 0:
                        rows_RC[place_L[word], column + number] += gradient_F[number]
                column += filters
            out += filters


@compiled
def embedding_bag_backward(
    gradient_BD: _Floats, row_T: _Ints, end_B: _Ints, rows_RD: _Floats, first: int, last: int
) -> None:
    """Add the gradient of each bag to its rows, for dimensions `first` to `last`."""
    start = 0
    for bag in range(len(end_B)):
        added_D = gradient_BD[bag, first:last]
        for place in range(start, end_B[bag]):
            sum_D = rows_RD[row_T[place], first:last]
            for number in range(len(sum_D)):
                sum_D[number] += added_D[number]
        start = end_B[bag]


@compiled
def adam(
    table_RD: _Floats,
    exp_avg_RD: _Floats,
    exp_avg_sq_RD: _Floats,
    row_T: _Ints,
    gradient_TD: _Floats,
    rates: _Floats,
    first: int,
    last: int,
) -> None:
    """One step of lazy Adam for the rows `row_T[first:last]`; rows with a zero gradient are skipped.

    Args:
        rates: in the dtype of the table: beta1, beta2, learning rate over the bias correction of
            exp_avg, bias correction of exp_avg_sq, epsilon.
    """
    keep, keep_square, step, correction, epsilon = rates
    one = rates.dtype.type(1)
    for place in range(first, last):
        gradient_D = gradient_TD[place]
        moves = False
        for number in range(len(gradient_D)):
            moves |= gradient_D[number] != 0
        if not moves:
            continue
        row = row_T[place]
        table_D, exp_avg_D, exp_avg_sq_D = table_RD[row], exp_avg_RD[row], exp_avg_sq_RD[row]
        for number in range(len(gradient_D)):
            slope = gradient_D[number]
            mean = keep * exp_avg_D[number] + (one - keep) * slope
            square = keep_square * exp_avg_sq_D[number] + (one - keep_square) * slope * slope
            exp_avg_D[number] = mean
            exp_avg_sq_D[number] = square
            table_D[number] -= step * mean / (np.sqrt(square / correction) + epsilon)
