"""Leading eigenvectors of a large sparse symmetric matrix.

They are the same to the byte for any number of threads and on any processor: every sum has a fixed
order, and no library of linear algebra chooses code.

Legend: V rows of the matrix, S entries, K columns of a basis, C columns, D dimensions, B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from titles.data.compiled import compiled

_Ints = NDArray[np.integer[Any]]
_Floats = NDArray[np.floating[Any]]

SPARE_COLUMNS = 10  # beyond the dimension: the last columns of a basis converge slowly
_ROUNDS = 3
_ENTRIES = 1 << 18  # of a chunk
_MOST_BLOCKS = 64
_SMALLEST_BLOCK = 1024  # rows
_SWEEPS = 60  # of Jacobi's rotations; about ten are enough
# Columns with a smaller share of the largest squared length are rounding.
_NOTHING = 1e-12


class Rows(NamedTuple):
    """A sparse matrix: row by row, columns and values of its entries; those of a row end at end_V."""

    end_V: NDArray[np.int64]
    columns_S: NDArray[np.int32]
    values_S: NDArray[np.float32]


def in_chunks(
    work: Callable[[int, int], None],
    bounds: Sequence[int],
    threads: int,
    done: Callable[[int, int], object] = lambda first, last: None,
) -> None:
    """Call `work(first, last)` between neighbouring bounds in threads, and `done` after each, in order.

    After an interrupt or an error, only chunks that have begun are finished.
    """
    ranges = list(pairwise(bounds))
    with ThreadPoolExecutor(threads, thread_name_prefix="titles-embed") as pool:
        try:
            jobs = [pool.submit(work, first, last) for first, last in ranges]
            for (first, last), job in zip(ranges, jobs, strict=True):
                job.result()
                done(first, last)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def eigenvectors(matrix: Rows, dimension: int, seed: int, threads: int) -> NDArray[np.float32]:
    """(V, D) eigenvectors of the largest eigenvalues by size, each times the root of that size.

    Randomised subspace iteration: Halko, Martinsson and Tropp (2011). Columns beyond the rank are 0.
    """
    rows = len(matrix.end_V)
    columns = min(dimension + SPARE_COLUMNS, rows)
    steps = np.arange(_ENTRIES, max(1, len(matrix.values_S)), _ENTRIES)
    bounds = np.unique([*_blocks(rows), *np.searchsorted(matrix.end_V, steps)]).tolist()
    basis_VK = np.random.default_rng(seed).standard_normal((rows, columns), np.float32)
    image_VK = np.empty_like(basis_VK)

    def multiply() -> None:
        in_chunks(
            lambda first, last: _multiply(*matrix, basis_VK, image_VK, first, last),
            bounds,
            threads,
            done=lambda first, last: bar.update(last - first),
        )

    with tqdm(
        total=(_ROUNDS + 1) * rows,
        unit=" words",
        unit_scale=True,
        desc="embed (ppmi, vectors)",
        disable=None,
    ) as bar:
        for _ in range(_ROUNDS):
            multiply()
            squares_K, axes_KK = symmetric_eigen(products(image_VK, image_VK, threads))
            kept_K = squares_K > _NOTHING * squares_K.max()
            lengths_K = np.sqrt(np.where(kept_K, squares_K, 1))
            basis_VK = turned(image_VK, axes_KK * (kept_K / lengths_K), threads)  # orthonormal
        multiply()
    values_K, axes_KK = symmetric_eigen(products(basis_VK, image_VK, threads))
    order = np.argsort(-np.abs(values_K), kind="stable")[:dimension]
    vectors_VD = np.zeros((rows, dimension), np.float32)
    scale = np.sqrt(np.abs(values_K[order]))
    vectors_VD[:, : len(order)] = turned(basis_VK, axes_KK[:, order] * scale, threads)
    return vectors_VD


def _blocks(rows: int) -> list[int]:
    block = max(_SMALLEST_BLOCK, -(-rows // _MOST_BLOCKS))
    return [*range(0, rows, block), rows]


def products(left_VK: _Floats, right_VK: _Floats, threads: int) -> _Floats:
    """(K, K) sums over rows of the products of columns, made symmetric."""
    columns, blocks = right_VK.shape[1], _blocks(len(right_VK))
    parts_BKK = np.zeros((len(blocks) - 1, columns, columns))
    in_chunks(
        lambda first, last: _add_products(left_VK, right_VK, parts_BKK[first // blocks[1]], first, last),
        blocks,
        threads,
    )
    sum_KK = np.zeros((columns, columns))
    for part_KK in parts_BKK:  # numpy's sums have an order of their own
        sum_KK += part_KK
    return (sum_KK + sum_KK.T) / 2


def turned(of_VK: _Floats, by_KC: _Floats, threads: int) -> NDArray[np.float32]:
    """(V, C) product of the two."""
    by_KC = np.ascontiguousarray(by_KC, np.float32)
    out_VC = np.empty((len(of_VK), by_KC.shape[1]), np.float32)
    in_chunks(lambda first, last: _turn(of_VK, by_KC, out_VC, first, last), _blocks(len(of_VK)), threads)
    return out_VC


def symmetric_eigen(matrix_KK: _Floats) -> tuple[_Floats, _Floats]:
    """Eigenvalues (K,), in no order, and eigenvectors in the columns of (K, K).

    Jacobi's method with cyclic rotations: Golub and Van Loan, Matrix Computations, section 8.5.
    """
    values_KK, axes_KK = np.array(matrix_KK, np.float64), np.eye(len(matrix_KK))
    _rotate(values_KK, axes_KK, _SWEEPS)
    return np.diagonal(values_KK).copy(), axes_KK.T


@compiled
def _multiply(
    end_V: _Ints,
    columns_S: _Ints,
    values_S: _Floats,
    of_VK: _Floats,
    out_VK: _Floats,
    first: int,
    last: int,
) -> None:
    """Rows `first` to `last` of the sparse matrix times a dense one."""
    for row in range(first, last):
        sum_K = out_VK[row]
        sum_K[:] = 0
        for entry in range(end_V[row - 1] if row > 0 else 0, end_V[row]):
            added_K, value = of_VK[columns_S[entry]], values_S[entry]
            for number in range(len(sum_K)):
                sum_K[number] += value * added_K[number]


@compiled
def _add_products(left_VK: _Floats, right_VK: _Floats, sum_KK: _Floats, first: int, last: int) -> None:
    """Add the products of all pairs of columns, over rows `first` to `last`."""
    right_K = np.empty(right_VK.shape[1], np.float64)
    for row in range(first, last):
        right_K[:] = right_VK[row]
        for column in range(len(right_K)):
            sum_K, value = sum_KK[column], np.float64(left_VK[row, column])
            for number in range(len(right_K)):
                sum_K[number] += value * right_K[number]


@compiled
def _turn(of_VK: _Floats, by_KC: _Floats, out_VC: _Floats, first: int, last: int) -> None:
    """Rows `first` to `last` of a dense matrix times a small one."""
    for row in range(first, last):
        sum_C = out_VC[row]
        sum_C[:] = 0
        for column in range(len(by_KC)):
            added_C, value = by_KC[column], of_VK[row, column]
            for number in range(len(sum_C)):
                sum_C[number] += value * added_C[number]


@compiled
def _rotate(values_KK: _Floats, axes_KK: _Floats, sweeps: int) -> None:
    """Make a symmetric matrix diagonal by rotations, and apply them to the rows of axes_KK."""
    size = len(values_KK)
    for _ in range(sweeps):
        largest, rotated = 0.0, False
        for one in range(size):
            largest = max(largest, abs(values_KK[one, one]))
        for one in range(size - 1):
            for two in range(one + 1, size):
                off = values_KK[one, two]
                if abs(off) <= 1e-15 * largest:
                    continue
                rotated = True
                slope = (values_KK[two, two] - values_KK[one, one]) / (2 * off)
                tangent = 1 / (abs(slope) + np.sqrt(slope * slope + 1))
                if slope < 0:
                    tangent = -tangent
                cosine = 1 / np.sqrt(tangent * tangent + 1)
                sine = tangent * cosine
                for k in range(size):
                    x, y = values_KK[one, k], values_KK[two, k]
                    values_KK[one, k], values_KK[two, k] = cosine * x - sine * y, sine * x + cosine * y
                for k in range(size):
                    x, y = values_KK[k, one], values_KK[k, two]
                    values_KK[k, one], values_KK[k, two] = cosine * x - sine * y, sine * x + cosine * y
                values_KK[one, two] = values_KK[two, one] = 0
                for k in range(size):
                    x, y = axes_KK[one, k], axes_KK[two, k]
                    axes_KK[one, k], axes_KK[two, k] = cosine * x - sine * y, sine * x + cosine * y
        if not rotated:
            break
