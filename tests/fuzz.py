"""Damaged and hostile input for all that reads: listings, titles, parameters, word vectors, prepared
titles, models.

    python tests/fuzz.py --inputs 1000000

Good examples are cut, flipped, repeated and spliced. A reader may take what comes of it or refuse it
with ValueError; all else is a failure, and so is memory without bound. An input follows from its target
and its number alone, so that a failure can be had again:
`python tests/fuzz.py --only csv --first 4711 --inputs 1`.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from tqdm import tqdm

from networks import vocabulary as vocabulary_of_networks
from networks import write_prepared
from saved_models import write_models
from titles.data.encoded import EncodedTitles, WordVectors
from titles.data.vocabulary import Vocabulary, read_labels
from titles.embed.vectors import read_pretrained
from titles.evaluation import predictions
from titles.listings import files, sources
from titles.models.cnn import TitleCNN
from titles.models.mlp import TitleMLP
from titles.models.parts import saved
from titles.models.registry import CLASSIFIERS, load_params
from titles.params import Text
from titles.prepare.text import tokenise

ROOT = Path(__file__).parent.parent
# Address space that one input may add to what the program has; a reader of a small file needs far less.
ROOM = 1 << 30
# Inputs a target gets, next to those of others: quick ones get more.
SHARES = {
    "title": 400,
    "csv": 150,
    "json_lines": 100,
    "listing_csv": 100,
    "course": 60,
    "vocabulary": 60,
    "labels": 60,
    "vectors": 50,
    "parquet": 15,
    "prepared": 15,
    "model": 8,
    "predictions": 8,
    "params": 4,
}
# What has broken readers before, here or elsewhere.
_TEXT = (
    '"|""|,|\n|\r|\r\n|\t| |\0|-1|1e999|nan|inf|null|{}|[]|true|99999999999999999999|4294967296|'
    "2147483648|!!python/object:os.system|*a|&a|<<|PAR1|<script>|../../etc/passwd|\x85|\u2028|\ufeff|\U0001f600"
)
DICTIONARY = [
    *(part.encode() for part in _TEXT.split("|")),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\x1f\x8b", b"0" * 400, b"[" * 400, b"a" * 2000),
]

Reader = Callable[[], None]


class Target(NamedTuple):
    """What reads a file: good contents of it, where it lies, and the reader."""

    examples: list[bytes]
    path: Path
    read: Reader


def mutated(example: bytes, others: list[bytes], draw: random.Random) -> bytes:
    data = bytearray(example)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 5, 8))):
        at = draw.randrange(len(data) + 1)
        length = min(len(data) - at, draw.choice((1, 1, 2, 4, 16, 100)))
        match draw.randrange(8):
            case 0 if length:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at:at] = draw.choice(DICTIONARY)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
            case 4:
                del data[at:]
            case 5:
                other = draw.choice(others)
                start = draw.randrange(len(other) + 1)
                data[at:at] = other[start : start + 200]
            case 6:
                data[at : at + length] = draw.randbytes(length)
            case _:
                data[at : at + length] = draw.choice(DICTIONARY)
    return bytes(data)


def _ignored(made: object) -> None:
    del made


def _drained(rows: Iterator[object]) -> None:
    for _ in rows:
        pass


def _csv() -> list[bytes]:
    rows = (
        'title,label_quality,language,category\n"Funda, para ""J7""",reliable,spanish,COVERS\n'
        + "".join(f"Teléfono {n} 😀 16gb,unreliable,portuguese,PHONES\n" for n in range(5))
    )
    plain = 'title,category\nuna silla,CHAIRS\n\n"dos\nlineas",CHAIRS\n'
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("listings.csv"), rows)
    return [
        rows.encode(),
        plain.encode(),
        gzip.compress(rows.encode(), mtime=0),
        bz2.compress(plain.encode()),
        lzma.compress(plain.encode()),
        packed.getvalue(),
        plain.encode("utf-16"),
        plain.replace(",", ";").encode(),
    ]


def _course() -> list[bytes]:
    row = {
        **{
            "language": "spanish",
            "label_quality": "reliable",
            "title": "Una Silla",
            "category": "CHAIRS",
        },
        **{
            "split": "train",
            "tokenized_title": ["una", "silla"],
            "data": [2, 3],
            "target": 1,
            "size": 9,
        },
    }
    lines = (json.dumps(row) + "\n") * 4
    return [gzip.compress(lines.encode(), mtime=0)]


def _parquet() -> list[bytes]:
    stream = io.BytesIO()
    table = pa.table({"title": ["una silla", "dos"], "category": ["A", "B"], "price": [1, None]})
    pq.write_table(table, stream)
    return [stream.getvalue()]


def targets(folder: Path) -> dict[str, Target]:
    """By name; their files lie in `folder`."""
    found: dict[str, Target] = {}

    def add(name: str, path: Path, examples: list[bytes], read: Reader) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found[name] = Target(examples, path, read)

    source = folder / "source"
    add("csv", source, _csv(), lambda: _drained(sources.read(source, "all", 1000)))
    parquet = folder / "parquet"
    add("parquet", parquet, _parquet(), lambda: _drained(sources.read(parquet, "all", 1000)))
    course = folder / "course" / "spanish.train.jsonl.gz"
    add("course", course, _course(), lambda: _drained(sources.read(course.parent, "spanish", 1000)))
    for split in ("validation", "test"):
        (course.parent / f"spanish.{split}.jsonl.gz").write_bytes(_course()[0])
    listed = folder / "listed"
    for name, kind, examples in (
        ("listing_csv", files.CSV, _csv()),
        ("json_lines", files.JSON_LINES, [b'{"title": "Una Silla", "id": 3}\n' * 3, *_course()]),
    ):

        def read_listing(kind: str = kind) -> None:
            with files.opened(listed, kind) as found:
                _drained(iter(found.chunks))

        add(name, listed, examples, read_listing)

    title = folder / "title"
    any_rules = [
        Text(
            strip_accents=strip, digits=digits, drop_seller_noise=noise, max_title_chars=50, max_words=5
        )
        for strip in (True, False)
        for digits in ("keep", "zero", "drop")
        for noise in (True, False)
    ]

    def read_title() -> None:
        text = title.read_bytes().decode("utf-8", "surrogateescape")
        rules = any_rules[len(text) % len(any_rules)]
        (words,) = tokenise([text], rules)
        assert len(words) <= rules.max_words
        assert all(words)
        # What is left where a phrase of sellers was dropped can be such a phrase again.
        assert rules.drop_seller_noise or tokenise([" ".join(words)], rules) == [words]

    titles = [
        "12x Sin Juros! Envío Grátis Ñandú — Celular Samsung™ J7 128GB ½ ﬁn",
        "İstanbul \uff57\uff49\uff44\uff45 漢字 e\u0301 \u200d 10\u00b2",
    ]
    add("title", title, [text.encode() for text in titles], read_title)

    models = write_models(folder / "models")
    words = Vocabulary.read(models / "cnn" / "vocabulary.tsv")
    vocabulary = folder / "vocabulary.tsv"
    good = (models / "cnn" / "vocabulary.tsv").read_bytes()
    add("vocabulary", vocabulary, [good], lambda: _ignored(Vocabulary.read(vocabulary)))
    labels = folder / "labels.txt"
    add(
        "labels",
        labels,
        [b"CHAIRS\nPHONES\n\xc3\x91ANDU\n"],
        lambda: _ignored(read_labels(labels)),
    )

    vectors = folder / "vectors"
    known = words.words[2:4]
    text = f"{len(known)} 3\n" + "".join(f"{word} 0.5 -1e-3 2\n" for word in known)
    binary = f"{len(known)} 3\n".encode() + b"".join(
        word.encode() + b" " + np.ones(3, "<f4").tobytes() + b"\n" for word in known
    )

    def read_vectors() -> None:
        made = read_pretrained(vectors, words, 3, 0, str.lower)
        assert np.isfinite(made.matrix_VD).all()

    add("vectors", vectors, [text.encode(), binary, gzip.compress(binary, mtime=0)], read_vectors)

    params = folder / "params.yaml"
    original = (ROOT / "params.yaml").read_text(encoding="utf-8")
    short = yaml.safe_dump(yaml.safe_load(original))
    add("params", params, [short.encode()], lambda: _ignored(load_params(params)))

    here = Path.cwd()
    os.chdir(folder)
    try:
        write_prepared()
    finally:
        os.chdir(here)
    train = folder / "data/prepared/train"
    arrays = {path: path.read_bytes() for path in sorted(train.iterdir())}
    embeddings = folder / "data/embedded"
    embedded = {path: path.read_bytes() for path in sorted(embeddings.iterdir())}
    model = {path: path.read_bytes() for path in sorted((models / "cnn").iterdir())}

    def one_of(name: str, files: dict[Path, bytes], read: Reader) -> None:
        """Damage one file of a folder; the rest is good."""
        for path, content in files.items():
            found[f"{name}:{path.name}"] = Target([content], path, read)

    def read_prepared() -> None:
        opened = EncodedTitles.open(train)
        for start in range(0, len(opened), 4):
            opened.lists(np.arange(start, min(start + 4, len(opened))))

    one_of("prepared", arrays, read_prepared)
    one_of(
        "prepared",
        embedded,
        lambda: _ignored(WordVectors.read(embeddings, len(vocabulary_of_networks()))),
    )

    def read_model() -> None:
        saved.read(models / "cnn", {"cnn": TitleCNN, "mlp": TitleMLP})

    one_of("model", model, read_model)

    predicted = folder / "predicted.parquet"
    columns: dict[str, list[object]] = {"line": [2, 3], "title": ["a", "b"], "category": ["A", "B"]}
    for each in CLASSIFIERS:
        measures: dict[str, list[object]] = {
            "confidence": [0.5, 0.6],
            "rank": [0, 1],
            "loss": [1.0, 2.0],
        }
        columns |= {each: ["A", "B"]} | {f"{each}_{k}": values for k, values in measures.items()}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)

    def read_predictions() -> None:
        predictions.read(io.BytesIO(predicted.read_bytes()))

    add("predictions", predicted, [stream.getvalue()], read_predictions)
    return found


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Refuse memory past ROOM, so that one who asks for too much fails here and at once. Linux alone."""
    if sys.platform != "linux":
        yield
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def attack(name: str, target: Target, number: int) -> str:
    """One input: "taken", "refused", or what went wrong."""
    draw = random.Random(f"{name} {number}")
    example = draw.choice(target.examples)
    return judged(f"{name} {number}", target, mutated(example, target.examples, draw))


def judged(name: str, target: Target, content: bytes) -> str:
    """What a reader makes of a content: "taken", "refused", or what went wrong with that name."""
    target.path.write_bytes(content)
    try:
        target.read()
    except ValueError as error:
        # What is told has to fit a screen, and be printable.
        if len(str(error)) > 4000:
            return f"{name}: a message of {len(str(error))} characters"
        str(error).encode("utf-8", "backslashreplace")
        return "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = "".join(traceback.format_exception(error, limit=-3))
        return f"{name}: {last}"
    return "taken"


def run(inputs: int, first: int, only: str, folder: Path) -> tuple[Counter[str], list[str]]:
    """Counts by target and outcome, and the failures."""
    torch.set_num_threads(1)
    known = targets(folder)
    chosen = {
        name: target for name, target in known.items() if only in ("", name, name.partition(":")[0])
    }
    families = Counter(name.partition(":")[0] for name in chosen)
    total = sum(SHARES[family] for family in families)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for name, target in chosen.items():
        family = name.partition(":")[0]
        share = max(1, round(inputs * SHARES[family] / total / families[family]))
        good = target.path.read_bytes() if target.path.exists() else b""
        with bounded_memory():
            for number in tqdm(range(first, first + share), desc=name, leave=False, disable=None):
                outcome = attack(name, target, number)
                counts[name] += 1
                counts[outcome if outcome in ("taken", "refused") else "failed"] += 1
                if outcome not in ("taken", "refused"):
                    failures.append(outcome)
        target.path.write_bytes(good)
    return counts, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all targets together")
    parser.add_argument("--first", type=int, default=0, help="number of each target's first input")
    parser.add_argument("--only", default="", help=f"one of {', '.join(SHARES)}")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="titles-fuzz-") as folder:
        counts, failures = run(arguments.inputs, arguments.first, arguments.only, Path(folder))
    done = sum(counts[outcome] for outcome in ("taken", "refused", "failed"))
    print(
        f"{done:,} inputs in {time.perf_counter() - started:,.0f} s: "
        f"{counts['taken']:,} taken, {counts['refused']:,} refused, {len(failures)} failures"
    )
    for name in sorted(set(counts) - {"taken", "refused", "failed"}):
        print(f"  {name}: {counts[name]:,}")
    print("\n".join(failures[:20]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
