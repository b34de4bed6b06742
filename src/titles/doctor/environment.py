"""Python, its packages, and how text is encoded."""

from __future__ import annotations

import locale
import platform
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from titles.doctor import asking, words
from titles.doctor.finding import OK, PROBLEM, WARNING, Finding


def python(root: Path | None) -> Iterator[Finding]:
    """Whether Python's version is one that the project supports."""
    from packaging.specifiers import SpecifierSet

    wanted, _ = _declared(root)
    here = platform.python_version()
    if SpecifierSet(wanted).contains(here, prereleases=True):
        yield Finding("python", OK, f"{here}, in {sys.prefix}")
    else:
        do = "`make clean`, then `make install PYTHON=/path/to/python3` with one of those"
        yield Finding("python", PROBLEM, f"{here}, expected {wanted}", do)


def packages(root: Path | None) -> Iterator[Finding]:
    """Whether all packages are there, in versions that fit."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    _, wanted = _declared(root)
    if not wanted:
        yield Finding("packages", WARNING, "the package titles is not installed", "`make install`")
    missing, unfit = [], []
    for requirement in map(Requirement, wanted):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = asking.version(requirement.name)
        if version is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            unfit.append(f"{requirement.name} {version} (expected {requirement.specifier})")
    if missing:
        yield Finding("packages", PROBLEM, f"not installed: {words.some(missing)}", "`make install`")
    if unfit:
        yield Finding("packages", PROBLEM, f"of another version: {words.some(unfit)}", "`make install`")
    if wanted and not missing + unfit:
        yield Finding("packages", OK, f"all {len(wanted)} that the project imports are there")
    if not root or not (root / "requirements.lock").is_file():
        return
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    other = []
    for name, version in pinned.items():
        found = asking.version(name)
        # What follows a + names a build, such as torch's for CPUs.
        if found is None or Version(found).public != Version(version).public:
            other.append(f"{name} {found or 'missing'} (locked {version})")
    if other:
        told = f"{len(other)} of {len(pinned)} differ from requirements.lock: {words.some(other)}"
        yield Finding("lock", WARNING, told, "`make install`: other versions may give other results")
    else:
        yield Finding("lock", OK, f"all {len(pinned)} packages are as in requirements.lock")


def _declared(root: Path | None) -> tuple[str, list[str]]:
    """Versions of Python and requirements: those of the folder's pyproject.toml, or as installed."""
    if root and (root / "pyproject.toml").is_file():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["requires-python"], project["dependencies"]
    try:
        installed = metadata.metadata("titles")
    except metadata.PackageNotFoundError:
        return "", []
    every = metadata.requires("titles") or []
    return installed["Requires-Python"] or "", [text for text in every if "extra ==" not in text]


def encoding() -> Iterator[Finding]:
    """Whether Python reads and prints all letters."""
    used = {
        "file names": sys.getfilesystemencoding(),
        "text files": locale.getpreferredencoding(False),
        "output": getattr(sys.stdout, "encoding", None) or "utf-8",
    }
    other = [f"{what}: {name}" for what, name in used.items() if name.lower() not in ("utf-8", "utf8")]
    if other:
        do = "`export PYTHONUTF8=1`, or a UTF-8 locale such as LC_ALL=C.UTF-8"
        yield Finding("encoding", PROBLEM, f"not UTF-8: {', '.join(other)}", do)
    else:
        yield Finding("encoding", OK, "UTF-8")
