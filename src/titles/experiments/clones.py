"""Temporary clones of the project, in which an experiment runs without touching the working tree."""

from __future__ import annotations

import shutil
from pathlib import Path

from titles.experiments.commands import dvc, git


def cloned(project: Path, commit: str, folder: Path) -> Path:
    """Make a clone of the project at a commit, in `folder`, that shares the project's cache.

    Returns:
        The clone. Nothing of it is outside `folder`.

    Raises:
        ValueError: git or DVC refuse.
    """
    clone = folder / "project"
    # --shared also finds commits of experiments, which are on no branch.
    git("clone", "--quiet", "--shared", "--no-checkout", str(project), str(clone))
    git("checkout", "--quiet", "--detach", commit, folder=clone)
    settings = project / ".dvc/config.local"
    if settings.exists():  # the user's remotes
        shutil.copy(settings, clone / ".dvc/config.local")
    cache = dvc("cache", "dir", folder=project).strip()
    dvc("cache", "dir", "--local", cache, folder=clone)
    # DVC keeps notes on each project elsewhere: those on the clone go with its folder.
    dvc("config", "--local", "core.site_cache_dir", str(folder / "site"), folder=clone)
    return clone
