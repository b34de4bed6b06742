"""Deliberate faults, each in a copy of the project, and the tests that have to notice: `make mutants`.

    python tests/mutants.py [NAME ...] [--write docs/mutants.md]

Only tests that `make test` runs count. Those named for a fault must pass before it is made, and one of
them must fail after it. The exit code is 1 if a fault goes unnoticed.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from faults import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
# Copies in which faults are made at the same time.
COPIES = min(4, os.cpu_count() or 1)


def text_of(mutant: Mutant, folder: Path = ROOT) -> str:
    """The file of a fault without it.

    Raises:
        ValueError: what is to be changed does not stand there once.
    """
    text = (folder / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: stands {text.count(mutant.old)} times in {mutant.file}")
    return text


def copy_project(folder: Path) -> Path:
    """The working tree without data, in a git repository of its own."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, found.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("remote/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def run_tests(folder: Path, tests: str) -> str:
    """The first test that failed, or in which the process died; "" if all pass.

    Raises:
        ValueError: pytest ends otherwise, for instance since there are no such tests.
    """
    words = [f"tests/{word}" if word.endswith(".py") else word for word in tests.split()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-x", "-m", "not endures", *words],
        cwd=folder,
        # Compiled modules are taken for current by the second: too coarse for faults made in a row.
        env=os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=1800,  # compiled code cannot be ended by the limit of pytest
        check=False,
    )
    if done.returncode == 0:
        return ""
    started = re.findall(r"^tests/(\w+\.py::\w+)(.*)", done.stdout, re.M)
    if done.returncode < 0 and started:
        return str(started[-1][0])
    failed = [name for name, told in started if re.search(r" (FAILED|ERROR)\b", told)]
    if done.returncode != 1 or not failed:
        raise ValueError(
            f"{tests}: pytest ends with {done.returncode}: {done.stdout[-2000:]}{done.stderr}"
        )
    return str(failed[0])


@contextmanager
def made(mutant: Mutant, folder: Path) -> Iterator[None]:
    """The fault in a copy, for a while."""
    text = text_of(mutant, folder)
    file = folder / mutant.file
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def judge(mutants: Iterable[Mutant]) -> dict[str, str]:
    """The test that noticed, by name of the fault; "" where none did.

    Raises:
        ValueError: tests fail without any fault, or end otherwise than by a failed test.
    """
    found: dict[str, str] = {}
    errors: list[Exception] = []
    waiting: queue.SimpleQueue[Mutant | str] = queue.SimpleQueue()
    chosen = list(mutants)
    jobs: list[Mutant | str] = [*dict.fromkeys(mutant.tests for mutant in chosen), *chosen]
    for job in jobs:
        waiting.put(job)

    def work(folder: Path, bar: tqdm[None]) -> None:
        while not errors:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                if isinstance(job, str):
                    if failed := run_tests(folder, job):
                        raise ValueError(f"{failed} fails without any fault")
                else:
                    with made(job, folder):
                        found[job.name] = run_tests(folder, job.tests)
            except Exception as error:
                errors.append(error)
            bar.update()

    with tempfile.TemporaryDirectory(prefix="titles-mutants-") as place:
        folders = [copy_project(Path(place) / str(number)) for number in range(min(COPIES, len(jobs)))]
        with tqdm(total=len(jobs), unit=" runs", disable=None) as bar:
            threads = [threading.Thread(target=work, args=(folder, bar)) for folder in folders]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if errors:
        raise errors[0]
    return {mutant.name: found[mutant.name] for mutant in chosen}


PAGE = """# Deliberate faults

`make mutants` makes each of these faults in a copy of the project and runs tests that `make test` runs.
The test that notices stands beside it.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to make; all by default")
    parser.add_argument("--write", type=Path, metavar="FILE", help="page to write if all are noticed")
    given = parser.parse_args()
    if given.names and given.write:
        parser.error("the page has all faults: --write goes without names")
    unknown = set(given.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not given.names or mutant.name in given.names]
    try:
        noticed = judge(chosen)
    except ValueError as error:
        sys.exit(f"error: {error}")
    rows = [(m.name, f"`{m.file}`", f"`{noticed[m.name] or '(none)'}`") for m in chosen]
    table = tabulate(rows, ["Fault", "in", "is noticed by"], tablefmt="github")
    print(table)
    missed = sum(not name for name in noticed.values())
    if missed:
        sys.exit(f"error: {missed} of {len(chosen)} faults go unnoticed")
    if given.write:
        given.write.write_text(PAGE.format(table=table), encoding="utf-8")


if __name__ == "__main__":
    main()
