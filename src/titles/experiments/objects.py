"""Whether data is what its hash says, by reading all its bytes.

DVC does not look: an object of its cache that is read-only counts as whole, and so does a file whose
time, size and inode are as when its hash was noted. What a disk has damaged is then taken for good by
`dvc status`, `dvc checkout` and `dvc pull`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tqdm import tqdm

_OUTS = ("outs", "metrics", "plots")
_FOLDER = ".dir"  # ends the hash of a folder, whose object lists its files


class Damage(NamedTuple):
    """A file whose bytes are not those of its name, or of dvc.lock.

    out: the output that it belongs to. path: the object, or the file in the workspace.
    """

    out: str
    path: Path


class Store(NamedTuple):
    """What a cache or remote in a folder has of some outputs.

    damaged: objects, and those that a folder lists and that are missing, which DVC may not notice.
    missing: outputs of which nothing is there. size: bytes of what is whole.
    """

    damaged: list[Damage]
    missing: list[str]
    size: int


def cached(root: Path) -> dict[str, str]:
    """The md5 hash of all that DVC keeps in its cache, by path: what dvc.lock and `dvc add` name.

    Metrics are in git alone, and so are left out.

    Raises:
        ValueError: dvc.yaml, dvc.lock or a file of `dvc add` is damaged.
    """
    found: dict[str, str] = {}
    apart: set[str] = set()
    for file in [root / "dvc.yaml", root / "dvc.lock", *sorted(root.glob("data/**/*.dvc"))]:
        folder = file.parent.relative_to(root)
        try:
            content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            for stage in content["stages"].values() if file.suffix != ".dvc" else [content]:
                for out in [out for kind in _OUTS for out in stage.get(kind, [])]:
                    if "md5" in out:
                        found[(folder / out["path"]).as_posix()] = out["md5"]
                    elif isinstance(out, dict):
                        apart |= {path for path, told in out.items() if told.get("cache") is False}
        except FileNotFoundError:
            continue
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{file.relative_to(root)} is damaged: `git checkout` it") from None
    return {path: digest for path, digest in found.items() if path not in apart}


def place(store: Path, name: str) -> Path:
    """Where a cache or remote in a folder keeps an object."""
    return store / "files/md5" / name[:2] / name[2:]


def named(store: Path, digest: str) -> list[str]:
    """The object of an output, and those of its files if it is a folder whose listing is whole."""
    listing = place(store, digest)
    if not digest.endswith(_FOLDER) or not is_whole(listing, digest):
        return [digest]
    return [digest, *(entry["md5"] for entry in json.loads(listing.read_bytes()))]


def is_whole(path: Path, name: str) -> bool:
    """Whether a file is there and has the bytes of an object's name."""
    return path.is_file() and _file_hash(path) == name.removesuffix(_FOLDER)


def read_store(store: Path, outs: Mapping[str, str]) -> Store:
    """Read every object of `outs` that a cache or remote in a folder has."""
    damaged, missing, size = [], [], 0
    for out, digest in tqdm(outs.items(), desc="reading", delay=2, leave=False, disable=None):
        for name in named(store, digest):
            path = place(store, name)
            if is_whole(path, name):
                size += path.stat().st_size
            elif path.is_file() or name != digest:
                damaged.append(Damage(out, path))
            else:
                missing.append(out)
    return Store(damaged, missing, size)


def read_workspace(root: Path, cache: Path, outs: Mapping[str, str]) -> list[Damage]:
    """Files in the workspace that are others than `outs` says; what is not there is left out.

    A folder's files are compared with its object in the cache, if that is whole.
    """
    found = []
    for out, digest in outs.items():
        for path, expected in _files(cache, out, digest):
            file = root / path
            if file.is_file() and not is_whole(file, expected):
                found.append(Damage(out, file))
    return found


def _files(cache: Path, out: str, digest: str) -> Iterator[tuple[str, str]]:
    listing = place(cache, digest)
    if not digest.endswith(_FOLDER):
        yield out, digest
    elif is_whole(listing, digest):
        for entry in json.loads(listing.read_bytes()):
            yield f"{out}/{entry['relpath']}", entry["md5"]


def _file_hash(path: Path) -> str:
    """The md5 by which DVC names a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
