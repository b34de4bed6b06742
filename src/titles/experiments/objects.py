"""Checks data against its hashes by reading all bytes.

DVC does not: it trusts a read-only object of its cache, and a file with the time, size and inode that it
had when it was hashed. `dvc status`, `dvc checkout` and `dvc pull` therefore accept data that a disk has
damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from titles.data.documents import parse_yaml, read_bytes, read_json

_OUTS = ("outs", "metrics", "plots")
_FOLDER = ".dir"  # suffix of the hash of a folder; its object lists the files


class Damage(NamedTuple):
    """A file that does not match its hash.

    out: the output that it belongs to. path: the object, or the file in the workspace.
    """

    out: str
    path: Path


class Store(NamedTuple):
    """The objects of some outputs in a cache or in a remote that is a folder.

    damaged: objects, including missing ones that a folder lists, which DVC may not notice.
    missing: outputs without any object. size: bytes of the undamaged objects.
    """

    damaged: list[Damage]
    missing: list[str]
    size: int


def cached(root: Path) -> dict[str, str]:
    """The md5 hash of each output in DVC's cache, by path, from dvc.lock and the files of `dvc add`.

    Outputs that are only in git, such as metrics, are left out.

    Raises:
        ValueError: dvc.yaml, dvc.lock or a file of `dvc add` is damaged.
    """
    found: dict[str, str] = {}
    in_git: set[str] = set()
    for file in [root / "dvc.yaml", root / "dvc.lock", *sorted(root.glob("data/**/*.dvc"))]:
        folder = file.parent.relative_to(root)
        try:
            content: dict[str, Any] = parse_yaml(read_bytes(file))
            for stage in content["stages"].values() if file.suffix != ".dvc" else [content]:
                for out in [out for kind in _OUTS for out in stage.get(kind, [])]:
                    if "md5" in out:
                        found[(folder / out["path"]).as_posix()] = out["md5"]
                    elif isinstance(out, dict):
                        in_git |= {
                            path for path, options in out.items() if options.get("cache") is False
                        }
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{file.relative_to(root)} is damaged: `git checkout` it") from None
    return {path: digest for path, digest in found.items() if path not in in_git}


def place(store: Path, name: str) -> Path:
    """Path of an object in a cache or remote."""
    return store / "files/md5" / name[:2] / name[2:]


def named(store: Path, digest: str) -> list[str]:
    """The object of an output, and those of its files if it is a folder with an undamaged list."""
    listing = place(store, digest)
    if not digest.endswith(_FOLDER) or not is_whole(listing, digest):
        return [digest]
    return [digest, *_listed(listing).values()]


def is_whole(path: Path, name: str) -> bool:
    """Whether a file exists and matches the name of its object."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return found == name.removesuffix(_FOLDER)


def read_store(store: Path, outs: Mapping[str, str]) -> Store:
    """Read every object of `outs` in a cache or remote."""
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
    """Files in the workspace that do not match `outs`; missing files are left out.

    A folder's files are compared with its object in the cache, if that is undamaged.
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
        for name, md5 in _listed(listing).items():
            yield f"{out}/{name}", md5


def _listed(listing: Path) -> dict[str, str]:
    """The md5 hash of each file of a folder, by its path there.

    Raises:
        ValueError: the object is no list of files.
    """
    try:
        return {str(entry["relpath"]): str(entry["md5"]) for entry in read_json(listing)}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{listing} is not the list of a folder's files") from None
