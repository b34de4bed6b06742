"""Outputs take their names only when they are on the disk, and touch nothing else."""

import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hostile.harness import SkippedError, dropping
from killed import killed
from titles.data import encoded, files, scratch
from titles.data.files import (
    WriteError,
    atomic_file,
    atomic_folder,
    is_one_file,
    write_json,
)
from titles.models.parts import saved

KINDS = ["file", "folder"]


def write(kind, path, content, during=lambda: None):
    """Write a file, or a folder with three files, of a content."""
    with (atomic_file if kind == "file" else atomic_folder)(path) as partial:
        if kind == "file":
            partial.write_bytes(content)
        else:
            (partial / "b").mkdir()
            for name in ("a", "b/c", "b/d"):
                (partial / name).write_bytes(content)
        during()


def content(path):
    """All that is at a path, by relative names; None if there is nothing."""
    if not os.path.lexists(path):
        return None
    found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in found}


def written(kind, value):
    return dict.fromkeys(["."] if kind == "file" else ["a", "b/c", "b/d"], value)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return oct(stat.S_IMODE(path.lstat().st_mode))


@pytest.fixture
def synced(monkeypatch):
    """What was brought to the disk, in order, and whether `out` had its new content by then."""
    found = []
    real = files.to_disk

    def spy(path):
        real(path)
        new = [Path("out"), Path("out/a")]
        within = path.parts[1:] if path.name and path.parts[0].endswith(".partial") else path.parts
        found.append(("/".join(within), any(p.is_file() and p.read_bytes() == b"new" for p in new)))

    monkeypatch.setattr(files, "to_disk", spy)
    return found


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, synced):
    monkeypatch.chdir(tmp_path)
    Path("out").write_bytes(b"old")
    with atomic_file(Path("out")) as partial:
        partial.write_bytes(b"new")
    assert synced == [("out", False), ("", True)]


def test_all_of_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, synced):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    write("folder", Path("out"), b"new")
    *before, last = synced
    names = ("out", "out/a", "out/b", "out/b/c", "out/b/d")
    assert sorted(before) == [(name, False) for name in names]
    assert last == ("", True)


# -- names


@pytest.mark.parametrize("kind", KINDS)
def test_names_beside_an_output_are_the_users(tmp_path, kind):
    out = tmp_path / "out"
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    for name in ("out.partial", ".out.partial", "out.tmp", ".out.0123456789abcdef.partial"):
        (tmp_path / name).write_bytes(b"mine")
    for name in ("out.old.partial", ".out.fedcba9876543210.partial", ".out.partial.d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_bytes(b"mine")
    (tmp_path / ".out.old.partial").symlink_to(target)
    before = content(tmp_path)
    for value in (b"old", b"new"):
        write(kind, out, value, during=lambda: (tmp_path / "out.partial").read_bytes())
        assert content(out) == written(kind, value)
    after = content(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in set(after) - set(before) if not name.startswith("out")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("older", [False, True])
def test_of_two_writers_at_once_one_gives_the_whole(tmp_path, kind, older):
    out = tmp_path / "out"
    if older:
        write(kind, out, b"old")
    write(kind, out, b"late", during=lambda: write(kind, out, b"early"))
    assert content(out) == written(kind, b"late")
    assert names(tmp_path) == ["out"]


def test_many_processes_that_write_one_name_leave_one_whole_result(tmp_path):
    code = (
        "import sys; from pathlib import Path; from titles.data.files import atomic_folder\n"
        "for _ in range(20):\n"
        "    with atomic_folder(Path('out')) as place:\n"
        "        for name in 'abc': (place / name).write_text(sys.argv[1])"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, w], cwd=tmp_path) for w in "123"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len({(tmp_path / "out" / name).read_text() for name in "abc"}) == 1
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["n" * 255, "ñ" * 127, " ", "a\nb", "*", "out.csv.gz", "\udcff.csv"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_name_can_be_written(tmp_path, kind, name):
    for value in (b"old", b"new"):
        write(kind, tmp_path / name, value)
    assert content(tmp_path / name) == written(kind, b"new")
    assert names(tmp_path) == [name]


def test_what_a_killed_process_left_goes_with_the_next_write_to_the_same_name(tmp_path):
    left, other = killed(tmp_path / "out"), killed(tmp_path / "out.csv")
    assert set(scratch.leftovers(tmp_path)) == {left, other}
    with atomic_file(tmp_path / "used"):
        assert set(scratch.leftovers(tmp_path)) == {left, other}  # not those in use
        write("file", tmp_path / "out", b"new")
        assert list(scratch.leftovers(tmp_path)) == [other]
        assert len(list(tmp_path.glob(".used.*.partial"))) == 1
    assert names(tmp_path) == sorted([other.name, "out", "used"])


@pytest.mark.parametrize("at", range(1, 9))
def test_an_interrupt_while_the_old_content_is_removed_leaves_nothing(tmp_path, monkeypatch, at):
    write("folder", tmp_path / "out", b"old")
    calls = []

    def interrupted(*arguments, real, **options):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    for name in ("unlink", "rmdir", "walk"):
        monkeypatch.setattr(os, name, partial(interrupted, real=getattr(os, name)))
    with suppress(KeyboardInterrupt):
        write("folder", tmp_path / "out", b"new")
    assert len(calls) >= at or at > 5
    assert names(tmp_path) == ["out"]
    assert content(tmp_path / "out") == written("folder", b"new")


def test_a_file_system_without_locks_loses_nothing(tmp_path, monkeypatch):
    left = killed(tmp_path / "out")

    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    write("folder", tmp_path / "out", b"new", during=lambda: write("folder", tmp_path / "out", b"old"))
    assert content(tmp_path / "out") == written("folder", b"new")
    assert left.exists()


def test_two_paths_that_name_one_file_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / "cache/files/md5/0f" / ("a" * 30)
    cached.parent.mkdir(parents=True)
    cached.touch()
    Path("sub").mkdir()
    Path("there").symlink_to("sub")
    Path("mine").symlink_to("sub/new")
    Path("one").symlink_to(cached)
    Path("two").symlink_to(cached)
    same = [("new", "new"), ("new", "sub/../new"), ("sub/new", "there/new"), ("mine", "there/new")]
    assert all(is_one_file(Path(a), Path(b)) for a, b in same)
    other = [("new", "sub/new"), ("one", "two"), (os.devnull, os.devnull)]
    assert not any(is_one_file(Path(a), Path(b)) for a, b in other)


# -- errors at every step

STEPS = {
    os: ["mkdir", "open", "fsync", "rename", "replace", "link", "chmod", "listdir", "rmdir", "unlink"],
    fcntl: ["flock"],
    files: ["exchange"],
}


class Failing:
    """Lets the call number `at` to one of STEPS fail, before or after it is carried out."""

    def __init__(self, monkeypatch, at, error, after):
        self.calls, self.at, self.error, self.after = 0, at, error, after
        for place, names in STEPS.items():
            for name in names:
                monkeypatch.setattr(place, name, self._wrapped(getattr(place, name)))

    def _wrapped(self, real):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls != self.at:
                return real(*arguments, **options)
            if self.after:
                real(*arguments, **options)
            raise self.error

        return call


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize(
    ("error", "after"),
    [
        (KeyboardInterrupt(), False),
        (KeyboardInterrupt(), True),
        (OSError(errno.EIO, "I/O error"), False),
    ],
    ids=["interrupt", "interrupt_after", "error"],
)
def test_an_error_at_any_step_leaves_the_old_or_the_new(
    tmp_path, monkeypatch, kind, older, exchanges, after, error
):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # takes long
    if not exchanges:
        monkeypatch.setattr(files, "_renameat2", None)
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        out = folder / "out"
        if older:
            write(kind, out, b"old")
        before = content(out)
        caught = None
        with monkeypatch.context() as patch:
            failing = Failing(patch, at, error, after)
            try:
                write(kind, out, b"new")
            except (WriteError, OSError, KeyboardInterrupt) as raised:
                caught = raised
        found, new = content(out), written(kind, b"new")
        if caught is None:
            assert found == new, at
        elif isinstance(caught, KeyboardInterrupt):
            assert found in (before, new), at
        else:
            assert found == before, at
        write(kind, out, b"again")  # and nothing stands in the way of the next
        assert content(out) == written(kind, b"again")
        if failing.calls < at:
            break
    assert at > 8


def test_a_full_disk_names_the_output_and_the_old_content_stays(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail():
        raise full

    out = tmp_path / "out"
    with pytest.raises(WriteError, match=r"cannot write .*/out: No space .*; nothing is left of it"):
        write("folder", out, b"new", fail)
    write("folder", out, b"old")
    with pytest.raises(WriteError, match=r"cannot write .*/out: No space .*; its old content is kept"):
        write("folder", out, b"new", fail)
    assert content(tmp_path) == {"out/a": b"old", "out/b/c": b"old", "out/b/d": b"old"}


@contextmanager
def files_of_at_most(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WRITERS = {
    "text": lambda place: (place / "x").write_text("x" * 100_000),
    "json": lambda place: write_json(place / "x", {"x": "x" * 100_000}),
    "array": lambda place: encoded._save(place / "x", np.ones(100_000)),
    "tensors": lambda place: saved.save_tensors({"x": torch.ones(100_000)}, place / "x"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_writes_a_full_disk_is_told_by_the_name_of_the_output(tmp_path, writer):
    with (
        pytest.raises(WriteError, match=r"cannot write \S*/out: File too large; nothing is left of it$"),
        files_of_at_most(10_000),
        atomic_folder(tmp_path / "out") as place,
    ):
        WRITERS[writer](place)
    assert names(tmp_path) == []


def test_arrays_have_the_bytes_of_numpy(tmp_path):
    for array in (
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.ones(0),
        np.ones((2, 3)).T,
        np.array(1),
    ):
        encoded._save(tmp_path / "a", array)
        np.save(tmp_path / "b.npy", array)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_is_written_to(tmp_path, monkeypatch, code):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    for kind in KINDS:
        write(kind, tmp_path / kind, b"new")
        assert content(tmp_path / kind) == written(kind, b"new")


def test_a_folder_of_a_containers_image_is_refused_and_stays(tmp_path, monkeypatch):
    write("folder", tmp_path / "out", b"old")

    def fail(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(files, "exchange", fail)
    with pytest.raises(
        WriteError, match=r"cannot write .*/out: it is part of .* image: remove it first"
    ):
        write("folder", tmp_path / "out", b"new")
    assert content(tmp_path / "out") == written("folder", b"old")
    assert names(tmp_path) == ["out"]


def test_errors_of_other_files_are_not_those_of_the_output(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"), atomic_file(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()


# -- modes


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_new_outputs_follow_the_umask_whatever_made_them(tmp_path, umask):
    for kind in KINDS:
        write(kind, tmp_path / kind, b"new")
    with atomic_folder(tmp_path / "model") as place:
        saved.save_tensors({"x": torch.ones(1)}, place / "weights")
        (place / "private").mkdir(0o700)
        (place / "private/copied").touch(0o444)
    with atomic_file(tmp_path / "weights") as partial:
        saved.save_tensors({"x": torch.ones(1)}, partial)
    for path in tmp_path.rglob("*"):
        expected = 0o777 & ~umask if path.is_dir() else 0o666 & ~umask
        assert mode(path) == oct(expected), path


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o666, 0o755, 0o400])
def test_an_older_file_keeps_its_mode_and_is_never_readable_by_more(tmp_path, umask, kept):
    out = tmp_path / "out"
    out.write_bytes(b"old")
    out.chmod(kept)
    with atomic_file(out) as partial:
        partial.write_bytes(b"new")
        assert mode(partial.parent) == "0o700"
    assert out.read_bytes() == b"new"
    assert mode(out) == oct(kept)


def test_an_older_folder_keeps_its_mode(tmp_path):
    write("folder", tmp_path / "out", b"old")
    (tmp_path / "out").chmod(0o2750)
    write("folder", tmp_path / "out", b"new")
    assert mode(tmp_path / "out") == "0o750"


CODE_OF_OTHERS = """
from pathlib import Path
from titles.data.files import atomic_file, atomic_folder
with atomic_file(Path("closed/file")) as partial:
    partial.write_text("new")
with atomic_file(Path("unreadable")) as partial:
    partial.write_text("new")
with atomic_folder(Path("closed/folder")) as partial:
    (partial / "x").write_text("new")
"""


def test_folders_that_may_not_be_listed_or_changed_do_not_stand_in_the_way(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir(0o500)
    (tmp_path / "closed/folder/a/b").mkdir(parents=True)
    (tmp_path / "closed/folder/a/b/x").touch()
    (tmp_path / "closed/folder/link").symlink_to(mine)
    (tmp_path / "unreadable").touch(0o200)
    for name, given in (("folder/a/b", 0), ("folder/a", 0o500), (".", 0o333)):
        (tmp_path / "closed" / name).chmod(given)
    try:
        command = [*dropping(), sys.executable, "-c", CODE_OF_OTHERS]
    except SkippedError as error:
        pytest.skip(str(error))
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    (tmp_path / "closed").chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "closed") == ["file", "folder"]
    assert content(tmp_path / "closed/folder") == {"x": b"new"}
    assert (mode(mine), mode(tmp_path / "unreadable")) == ("0o500", "0o200")
    (tmp_path / "unreadable").chmod(0o600)
    assert (tmp_path / "unreadable").read_bytes() == b"new"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_object_of_dvcs_cache_stays_and_its_mode_is_not_taken_over(tmp_path, link):
    cached = tmp_path / "cache/files/md5/0f" / ("a" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cached")
    cached.chmod(0o444)
    out = tmp_path / "out"
    link(cached, out)
    write("file", out, b"new")
    assert (cached.read_bytes(), mode(cached)) == (b"cached", "0o444")
    assert (out.read_bytes(), out.is_symlink()) == (b"new", False)
    assert out.stat().st_mode & stat.S_IWUSR


def test_a_second_link_to_a_file_keeps_the_old_content(tmp_path):
    write("file", tmp_path / "out", b"old")
    (tmp_path / "other").hardlink_to(tmp_path / "out")
    write("file", tmp_path / "out", b"new")
    assert (tmp_path / "other").read_bytes() == b"old"
