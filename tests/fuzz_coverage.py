"""The readers of `fuzz.py`, under inputs that Atheris bends towards code that no input has reached yet.

    pip install atheris
    python tests/fuzz_coverage.py --seconds 60 --corpus .bench/corpus

Each target has a process of its own, and libFuzzer's corpus in a folder of its name, which the next call
goes on with. What breaks a reader stays there too, as crash-*, timeout-* or oom-*: give that file to
`--again` with `--only`. The exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["titles"]):
    import fuzz

TARGETS = ("csv", "listing_csv", "json_lines", "course", "title", "vectors", "vocabulary", "labels")
LONGEST = 4096  # bytes of an input
PATIENCE = 20  # seconds for one input


def attack(name: str, folder: Path, options: list[str]) -> None:
    """Hand this process over to libFuzzer, which ends it."""
    target = fuzz.targets(folder)[name]

    def one(content: bytes) -> None:
        outcome = fuzz.judged(name, target, content)
        if outcome not in ("taken", "refused"):
            raise RuntimeError(outcome)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def started(name: str, examples: list[bytes], seconds: int, corpus: Path) -> tuple[int, str]:
    """Inputs tried, and what went wrong, "" for nothing."""
    place = corpus / name
    place.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(examples):
        (place / f"example-{number}").write_bytes(example)
    words = corpus / "dictionary"
    escaped = ["".join(f"\\x{byte:02x}" for byte in word) for word in fuzz.DICTIONARY if word]
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={PATIENCE}"]
    options += ["-rss_limit_mb=3000", f"-dict={words}", f"-artifact_prefix={place}/"]
    done = subprocess.run(
        [sys.executable, __file__, "--run", name, *options, "-print_final_stats=1", str(place)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    count = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    return int(count[1]) if count else 0, "" if done.returncode == 0 else done.stderr[-3000:]


def main() -> int:
    if sys.argv[1:2] == ["--run"]:
        with tempfile.TemporaryDirectory(prefix="titles-fuzz-") as name:
            attack(sys.argv[2], Path(name), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="a target (default: %(default)s)")
    parser.add_argument("--only", default="", help=f"one of {', '.join(TARGETS)}")
    parser.add_argument(
        "--corpus", type=Path, default=Path(".bench/corpus"), help="(default: %(default)s)"
    )
    parser.add_argument("--again", type=Path, help="a file that broke the target `--only`")
    given = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory(prefix="titles-fuzz-") as name:
        known = fuzz.targets(Path(name))
        if given.again:
            print(fuzz.judged(given.only, known[given.only], given.again.read_bytes()))
            return 0
        for target in [given.only] if given.only else TARGETS:
            count, failure = started(target, known[target].examples, given.seconds, given.corpus)
            kept = sum(1 for _ in (given.corpus / target).iterdir())
            print(
                f"{target}: {count:,} inputs, {kept:,} kept{', FAILED' if failure else ''}", flush=True
            )
            failures += [failure] if failure else []
    print(*failures, sep="\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
