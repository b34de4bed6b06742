"""Caches of compiled loops that are cut, empty, unwritable or full of garbage."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

from hostile.harness import Place, case, cases

KIND = "numba"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage \x80\x04" * 100)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data), 97):
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere/at/all")


def other(path: Path) -> None:
    """The content of another file of the cache, or a pickle of something else."""
    path.write_bytes(b"\x80\x04N.")


def cached(place: Place) -> tuple[bytes, list[Path]]:
    """What predict prints, with its loops compiled into a cache of this case; the files of the cache."""
    place.models()
    place.environment["NUMBA_CACHE_DIR"] = str(place / "cache")
    expected = place.done("predict", "word2 word3 word4", makes=["cache"]).out
    files = [path for path in (place / "cache").rglob("*") if path.is_file()]
    assert files, "the case is broken: nothing was compiled"
    return expected, files


@cases(
    KIND,
    {
        f"{ending or 'all'}, {damage.__name__}": (ending, damage)
        for ending, damage in [
            (".nbi", cut),
            (".nbi", empty),
            (".nbi", garbage),
            (".nbi", other),
            (".nbc", cut),
            (".nbc", empty),
            (".nbc", zeros),
            (".nbc", flipped),
            (".nbi", folder),
            (".nbc", folder),
            ("", dangling),
        ]
    },
)
def damaged(place: Place, ending: str, damage: Callable[[Path], None]) -> None:
    expected, files = cached(place)
    for path in files:
        if path.name.endswith(ending):
            damage(path)
    for _ in range(2):  # and what that has left
        assert place.done("predict", "word2 word3 word4", makes=["cache"]).out == expected


@case(KIND, "the cache cannot be written")
def unwritable(place: Place) -> None:
    expected, files = cached(place)
    for path in files:
        path.unlink()
    for path in [*(place / "cache").iterdir(), place / "cache"]:
        path.chmod(0o555)
    assert place.done("predict", "word2 word3 word4", as_others=True).out == expected


@case(KIND, "the cache cannot be read")
def unreadable(place: Place) -> None:
    expected, files = cached(place)
    for path in files:
        path.chmod(0)
    assert place.done("predict", "word2 word3 word4", as_others=True, makes=["cache"]).out == expected


@case(KIND, "the cache is a file")
def is_a_file(place: Place) -> None:
    expected, _ = cached(place)
    shutil.rmtree(place / "cache")
    place.write("cache", "mine")
    assert place.done("predict", "word2 word3 word4").out == expected


@case(KIND, "the cache does not fit the disk")
def full(place: Place) -> None:
    expected, files = cached(place)
    for path in files:
        path.unlink()
    limits = {resource.RLIMIT_FSIZE: 3000}
    assert place.done("predict", "word2 word3 word4", makes=["cache"], limits=limits).out == expected
    assert place.done("predict", "word2 word3 word4", makes=["cache"]).out == expected


@case(KIND, "two processes fill one cache")
def together(place: Place) -> None:
    import subprocess

    expected, files = cached(place)
    for path in files:
        path.unlink()
    processes = [place.start("predict", "word2 word3 word4", stdout=subprocess.PIPE) for _ in range(3)]
    assert {process.communicate(timeout=180)[0] for process in processes} == {expected}
