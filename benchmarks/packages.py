"""Install the packages of other classifiers, each into a folder of its own.

    python benchmarks/packages.py [NAME ...]

Two of them have the module fasttext, and none may change the project's environment. One that does not
install is named with pip's last line, which also stands in the report, and does not stop the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from titles.data.files import atomic_file, atomic_folder, read_lines

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench" / "packages"
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"


def pinned() -> dict[str, str]:
    """Version by name."""
    lines = [line.partition("#")[0].strip() for line in read_lines(REQUIREMENTS)]
    return {name: version for name, _, version in (line.partition("==") for line in lines if line)}


def use(name: str) -> None:
    """Let this process import a package.

    Raises:
        ImportError: it is not there in the pinned version; the message is pip's last line, if it could
            not be installed.
    """
    wanted, folder = pinned()[name], FOLDER / name
    if _version(folder, name) == wanted:
        sys.path.insert(0, str(folder))
        return
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        error = _error(name)
        told = error.read_text(encoding="utf-8") if error.exists() else "not installed"
        raise ImportError(f"{name} {wanted}: {told.strip()}") from None
    if found != wanted:
        raise ImportError(f"{name} {wanted}: version {found} is installed")


def fasttext_module() -> Any:
    """fastText itself, for scripts that cannot do without.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        use("fasttext")
        import fasttext
    except ImportError as error:
        sys.exit(f"error: {error}: run `python benchmarks/packages.py fasttext`")
    return fasttext


def install(name: str) -> str:
    """Install a package in its pinned version, if it is not there; returns pip's last line if that
    fails, otherwise "" ."""
    version = pinned()[name]
    if _version(FOLDER / name, name) == version:
        return ""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    _error(name).unlink(missing_ok=True)
    try:
        with atomic_folder(FOLDER / name) as partial:
            subprocess.run(
                [*command, "--no-deps", "--target", str(partial), f"{name}=={version}"],
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
    except subprocess.CalledProcessError as failed:
        lines = [line.strip() for line in failed.stdout.splitlines() if line.strip()]
        last = lines[-1] if lines else f"pip ended with exit code {failed.returncode}"
        with atomic_file(_error(name)) as file:
            file.write_text(f"{last}\n", encoding="utf-8")
        return last
    return ""


def _version(folder: Path, name: str) -> str | None:
    return next((one.version for one in metadata.distributions(name=name, path=[str(folder)])), None)


def _error(name: str) -> Path:
    return FOLDER / f"{name}.error.txt"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = pinned()
    parser.add_argument("name", nargs="*", help=f"(default: all of {', '.join(names)})")
    for name in parser.parse_args(arguments).name or names:
        if name not in names:
            parser.error(f"{name} is not in {REQUIREMENTS.name}")
        error = install(name)
        told = f"does not install: {error}" if error else "is installed"
        print(f"{name} {names[name]} {told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
