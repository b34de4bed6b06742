"""Damaged inputs to each kind of reader; `python tests/fuzz.py --inputs 1000000` tries a million."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fuzz
from titles.data.encoded import WordVectors


def test_damaged_input_is_taken_or_refused_and_nothing_else(tmp_path):
    counts, failures = fuzz.run(3_000, 0, "", tmp_path)
    assert failures == []
    assert counts["taken"] > 500
    assert counts["refused"] > 500
    assert counts["failed"] == 0


def hungry():
    np.ones(2 * fuzz.ROOM, np.uint8)


def failing():
    raise KeyError("title")


def talkative():
    raise ValueError("x" * 10_000)


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")


@pytest.mark.parametrize("reader", [pytest.param(hungry, marks=needs_linux), failing, talkative])
def test_a_reader_that_takes_too_much_breaks_or_floods_the_screen_is_noticed(tmp_path, reader):
    target = fuzz.Target([b"title\n"], tmp_path / "file", reader)
    with fuzz.bounded_memory():
        assert fuzz.attack("csv", target, 0) not in ("taken", "refused")


def test_an_input_follows_from_its_target_and_number(tmp_path):
    def inputs(first: int) -> list[bytes]:
        found: list[bytes] = []
        path = tmp_path / "file"
        target = fuzz.Target([b"title,category\n" * 9], path, lambda: found.append(path.read_bytes()))
        for number in range(first, first + 20):
            fuzz.attack("csv", target, number)
        return found

    assert inputs(0) == inputs(0)
    assert inputs(0) != inputs(20)
    assert len(set(inputs(0))) > 10


def test_a_damaged_array_is_refused_whatever_its_header_says(tmp_path):
    np.save(tmp_path / "has_vector.npy", np.ones(3, bool))
    for header in (b"{'descr': '<f4', (", b"\0", b"{'descr': '<f4'}" + b"\x1f", b"9" * 5000):
        Path(tmp_path / "matrix.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        )
        with pytest.raises(ValueError, match=r"matrix\.npy is damaged"):
            WordVectors.read(tmp_path, 3)
