"""Whether the files that parameters name are known to DVC or git, and so to other runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from titles.params import Embed, Prepare

_GIT = "git", "--literal-pathspecs"


def note_inputs(section: Prepare | Embed) -> None:
    """`note_untracked` for the files that a section names."""
    if isinstance(section, Embed):
        if section.method == "pretrained":
            note_untracked("embed.pretrained", section.pretrained)
        return
    note_untracked("prepare.source", section.source)
    note_untracked("prepare.reference", section.reference)
    note_untracked("prepare.corrections", section.corrections, "git add")


def note_untracked(parameter: str, path: str, by: str = "dvc add") -> None:
    """Say on stderr how to track the file or folder that a parameter names, if nothing tracks it.

    Nothing is said outside a git repository with DVC, or if there is no such file.

    Args:
        by: the command that tracks such files.
    """
    if (reason := untracked(path)) is None:
        return
    shown = shlex.quote(path)
    remedy = f"`{by} {shown}`" if _inside(path) else f"copy it to data/raw, then `{by}` the copy"
    print(
        f"warning: {parameter} {shown} is {reason}: queued and temporary runs do not see it, and the "
        f"result cannot be repeated once it changes: {remedy}",
        file=sys.stderr,
    )


def untracked(path: str) -> str | None:
    """Why other runs do not see a file or folder; None if they do, or it cannot be said."""
    if not Path(path).exists() or not _in_repository():
        return None
    if not _inside(path):
        return "outside of the project"
    # A file that DVC tracks has a file of DVC beside it, or beside a folder above it.
    others = _git("ls-files", "--others", "-z", "--", path)
    if others is None or all(map(_by_dvc, others.split("\0"))):
        return None
    return None if _output(path) else "tracked by neither DVC nor git"


def _by_dvc(path: str) -> bool:
    if not path or path.endswith((".dvc", ".gitignore")):
        return True
    places = (Path(path), *Path(path).parents)
    return any(place.with_name(f"{place.name}.dvc").is_file() for place in places if place.name)


def _inside(path: str) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(Path.cwd())  # noqa: PTH100, links stay


def _in_repository() -> bool:
    return Path(".dvc").is_dir() and _git("rev-parse", "--is-inside-work-tree") is not None


def _git(*arguments: str) -> str | None:
    """The output of git; None if it fails, or is not installed."""
    try:
        done = subprocess.run([*_GIT, *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return os.fsdecode(done.stdout)


def _output(path: str) -> bool:
    """Whether DVC tracks a path under another name: an import, a folder, or the output of a stage."""
    from dvc.exceptions import DvcException, OutputNotFoundError  # slow to import
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            repo.find_outs_by_path(str(Path(path).absolute()), strict=False)
    except OutputNotFoundError:
        return False
    except (DvcException, OSError):
        return True  # it cannot be said
    return True
