"""Temporary clones of the project, in which an experiment runs without touching the working tree."""

from __future__ import annotations

import os
from pathlib import Path

from titles.experiments.commands import git, top
from titles.experiments.paths import unfit

CLONE = "project"  # the name of a clone in its folder


def cloned(project: Path, commit: str, folder: Path) -> Path:
    """Make a clone at a commit, in `folder`, that shares the objects of git and the cache of DVC.

    Args:
        project: its folder, in a git repository of any shape: larger, shallow, or a worktree.

    Returns:
        The folder of the project in the clone. Nothing of the clone is outside `folder`.

    Raises:
        ValueError: git or DVC refuse.
    """
    from configobj import ConfigObj
    from dvc.config import Config

    if reason := unfit(project) or unfit(folder):
        raise ValueError(reason)
    root, clone = top(project), folder / CLONE
    if git("config", "--default", "", "--get", "extensions.partialClone", folder=root).strip():
        # git gets objects that a partial clone lacks when it needs them, but not for another repository.
        git("archive", "--output", os.devnull, "--format=tar", commit, folder=root)
    # Not by `git clone`, which takes neither a shallow repository nor commits that are on no branch.
    git("init", "--quiet", "--template=", str(clone))
    for name, place in (("objects", "objects/info/alternates"), ("shallow", "shallow")):
        path = git("rev-parse", "--git-path", name, folder=root).removesuffix("\n")
        known, own = root / path, clone / ".git" / place
        own.parent.mkdir(parents=True, exist_ok=True)
        if name == "objects":
            own.write_bytes(os.fsencode(known.resolve()) + b"\n")
        elif known.exists():
            own.write_bytes(known.read_bytes())
    git("checkout", "--quiet", "--detach", commit, folder=clone)
    here = clone / project.resolve().relative_to(root.resolve())
    if not here.is_dir():
        raise ValueError(
            f"{commit[:7]} has no folder {here.relative_to(clone)}, where the project is now"
        )
    shared = next((place for place in (project, *project.parents) if (place / ".dvc").is_dir()), None)
    if shared is None:
        raise ValueError(f"{project} is not a project of DVC: it has no folder .dvc")
    config = Config(str(shared / ".dvc"))
    settings = config.load_one("local")  # the user's remotes
    settings["cache"]["dir"] = config["cache"].get("dir") or str(shared / ".dvc/cache")
    # DVC keeps notes on each project elsewhere: those on the clone go with its folder.
    settings["core"]["site_cache_dir"] = str(folder / "site")
    for kind in ("remote", "machine", "db"):
        for name, section in settings.pop(kind, {}).items():
            settings[f'{kind} "{name}"'] = section
    own = clone / shared.resolve().relative_to(root.resolve()) / ".dvc/config.local"
    with own.open("wb") as stream:  # not by `dvc config`, which writes ASCII
        ConfigObj(settings, encoding="utf-8", interpolation=False).write(stream)
    return here
