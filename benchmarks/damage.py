"""Count which commands detect damaged data in DVC's cache, remote and workspace.

    python benchmarks/damage.py

Runs and pushes the project on a small catalogue. Then damages each object in turn in each way, in the
cache, in the remote, and as a file in the workspace, keeping its time, mode and, where possible, size.
DVC has detected damage if its exit code is not 0 or the bytes are correct afterwards; `titles doctor` if
its reading reports it. Then follows the doctor's advice, which must repair everything. On Ctrl-C, prints
the results so far. `--doctor` tests only the doctor, which is far faster.
"""

from __future__ import annotations

import titles  # noqa: F401  before numpy, whose threads read its settings

# isort: split
import argparse
import io
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from dvc.cli import main as dvc_main
from tabulate import tabulate
from tqdm import tqdm

from titles.experiments import objects

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import small_project
from small_project import put

CACHE, REMOTE = Path(".dvc/cache"), Path("remote")
INTERRUPTED = 252  # an exit code of DVC
KINDS = ("cache", "remote", "workspace")
# Each keeps the length unless its name says otherwise.
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "a bit flipped": lambda old: (
        old[: len(old) // 2] + bytes([old[len(old) // 2] ^ 1]) + old[len(old) // 2 + 1 :]
    ),
    "cut by half": lambda old: old[: len(old) // 2],
    "empty": lambda old: b"",
    "a byte appended": lambda old: old + b"\0",
    "zeros of its length": lambda old: bytes(len(old)),
}
SWAPPED, DELETED = "swapped with another", "deleted"


def dvc(*arguments: str) -> bool:
    """Whether a DVC command, run in this process, succeeds."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = dvc_main([arguments[0], "-q", *arguments[1:]])
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return bool(code == 0)


def content(out: Path) -> dict[str, bytes]:
    files = [out] if out.is_file() else sorted(out.rglob("*"))
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def drop(out: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    Path(out).unlink(missing_ok=True)


def damage(path: Path, other: Path, way: str) -> bool:
    """Damage a file; returns whether its bytes changed, since an empty file cannot be cut."""
    old = path.read_bytes()
    if way == DELETED:
        path.unlink()
        return True
    if way == SWAPPED:
        new = other.read_bytes()
        put(other, old)
    elif old or way == "a byte appended":
        new = WAYS[way](old)
    else:
        return False
    put(path, new)
    return new != old


class Trials:
    """A project in the current folder that was run and pushed."""

    def __init__(self) -> None:
        outs = objects.cached(Path())
        self.outs = {out: digest for out, digest in outs.items() if Path(out).exists()}
        self.right = {out: content(Path(out)) for out in self.outs}
        self.content = {path: data for some in self.right.values() for path, data in some.items()}
        self.names = {out: objects.named(CACHE, digest) for out, digest in self.outs.items()}
        self.every = [(out, name) for out, names in self.names.items() for name in names]
        self.whole = {name: objects.place(CACHE, name).read_bytes() for _, name in self.every}

    def cache(self, out: str) -> dict[str, bool]:
        """Whether each command detects damage to an output's object in the cache."""
        found = {"dvc status": not dvc("status")}
        drop(out)
        found["dvc checkout"] = not dvc("checkout", out) or content(Path(out)) == self.right[out]
        found["dvc status after it"] = not dvc("status")
        read = objects.read_store(CACHE, self.outs)
        found["titles doctor"] = bool(read.damaged or read.missing)
        drop(out)
        found["dvc pull"] = not dvc("pull", out) or content(Path(out)) == self.right[out]
        # The doctor's advice, twice: a folder's files can be checked only once its listing is repaired.
        for _ in range(2):
            for one in objects.read_store(CACHE, self.outs).damaged:
                one.path.unlink(missing_ok=True)
                drop(one.out)
            pulled = dvc("pull")
        found["mended by the advice"] = pulled and self._is_whole()
        return found

    def workspace(self, out: str) -> dict[str, bool]:
        """The same for a file in the workspace."""
        found = {"dvc status": not dvc("status"), "dvc pull": not dvc("pull")}
        found["dvc pull"] |= content(Path(out)) == self.right[out]
        damaged = objects.read_workspace(Path(), CACHE, self.outs)
        found["titles doctor"] = bool(damaged) or found["dvc pull"]
        for one in damaged:
            drop(one.out)
        found["mended by the advice"] = dvc("checkout") and self._is_whole()
        return found

    def remote(self, out: str) -> dict[str, bool]:
        """The same for the remote, when the cache lacks the output."""
        read = objects.read_store(REMOTE, self.outs)
        found = {"titles doctor": bool(read.damaged or read.missing)}
        for one in {out, *(one.out for one in read.damaged)}:
            drop(one)
            for name in self.names[one]:
                objects.place(CACHE, name).unlink(missing_ok=True)
        found["dvc pull"] = not dvc("pull")
        # A part of a folder may be present, but no wrong file.
        wrong = [one for one in objects.read_store(CACHE, self.outs).damaged if one.path.is_file()]
        there = content(Path(out)).items() <= self.right[out].items()
        found["nothing wrong came"] = not wrong and there
        return found

    def doctor(self, kind: str) -> dict[str, bool]:
        """Whether `titles doctor` detects damage by reading, without running DVC."""
        if kind == "workspace":
            return {"titles doctor": bool(objects.read_workspace(Path(), CACHE, self.outs))}
        read = objects.read_store(REMOTE if kind == "remote" else CACHE, self.outs)
        return {"titles doctor": bool(read.damaged or read.missing)}

    def files(self, out: str, name: str) -> tuple[Path | None, Path]:
        """A file of the workspace with the bytes of an object, and a different file."""
        other = next(Path(path) for path, data in self.content.items() if data != self.whole[name])
        same = [path for path in self.right[out] if self.right[out][path] == self.whole[name]]
        return Path(same[0]) if same else None, other

    def restore(self, folder: Path) -> None:
        for name, data in self.whole.items():
            path = objects.place(folder, name)
            if not path.is_file():
                path.write_bytes(data)
                path.chmod(0o444)
            elif path.read_bytes() != data:
                put(path, data)

    def _is_whole(self) -> bool:
        store = objects.read_store(CACHE, self.outs)
        bytes_right = all(content(Path(out)) == right for out, right in self.right.items())
        return bytes_right and not store.damaged + store.missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=1_000, help="size of the catalogue (default: %(default)s)"
    )
    parser.add_argument("--every", type=int, default=1, help="test only every N-th object", metavar="N")
    parser.add_argument("--doctor", action="store_true", help="do not run DVC")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # shells disable SIGINT for background jobs
        signal.signal(number, signal.default_int_handler)
    counts: dict[tuple[str, str], Counter[str]] = {}
    failed: list[str] = []
    home = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="titles-damage-") as name:
        folder = Path(name)
        os.environ.update(small_project.environment())
        small_project.write_project(folder, given.rows)
        small_project.run(folder, "dvc", "repro")
        small_project.run(folder, "dvc", "push", "-q")
        os.chdir(folder)
        with suppress(KeyboardInterrupt):
            trials = Trials()
            chosen = trials.every[:: given.every]
            todo = [
                (kind, way, one)
                for one in range(0, len(trials.every), given.every)
                for kind in KINDS
                for way in (*WAYS, SWAPPED, DELETED)
            ]
            print(f"{len(chosen)} of {len(trials.every)} objects", file=sys.stderr)
            for kind, way, number in tqdm(todo, unit="damage"):
                out, object_name = trials.every[number]
                place = REMOTE if kind == "remote" else CACHE
                path = objects.place(place, object_name)
                other = objects.place(place, trials.every[number - 1][1])
                if kind == "workspace":
                    path, other = trials.files(out, object_name)
                if given.doctor and (kind, way) == ("workspace", DELETED):
                    continue  # detected by DVC, which is not run here
                if path and damage(path, other, way):
                    noticed = trials.doctor(kind) if given.doctor else getattr(trials, kind)(out)
                    counts.setdefault((kind, way), Counter(objects=0))["objects"] += 1
                    counts[kind, way].update({check: int(good) for check, good in noticed.items()})
                    if not noticed["titles doctor"] or not noticed.get("mended by the advice", True):
                        failed.append(f"{kind}: {out}, {object_name}, {way}: {noticed}")
                trials.restore(place)
                if given.doctor:
                    for file in [path, other] if kind == "workspace" and path else []:
                        put(file, trials.content[str(file)])
                elif not dvc("pull"):
                    raise RuntimeError(f"not repaired after {kind}, {out}, {way}")
        os.chdir(home)
    for kind in KINDS:
        some = {way: counts[kind, way] for _, way in counts if (kind, way) in counts}
        rows = [
            {kind: way, **{check: str(number) for check, number in count.items()}}
            for way, count in some.items()
        ]
        print(f"\n{tabulate(rows, headers='keys', tablefmt='github', disable_numparse=True)}")
    print("", *failed, sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
