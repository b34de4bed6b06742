import csv
import gzip
import json
from collections import Counter

import numpy as np
import pytest

from titles.data.contract import GIVEN_SPLITS, NO_CORRECTIONS, NO_REFERENCE, PAD, SPLITS, UNK
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_folder, write_json
from titles.data.vocabulary import Vocabulary, read_labels
from titles.params import Prepare
from titles.prepare import reading
from titles.prepare.preparation import prepare

HEADER = "title,label_quality,language,category\n"
NOUNS = {"TABLES": "mesa", "CASES": "funda", "PHONES": "celular"}


def listing(count, language="spanish", quality="reliable"):
    """Rows of three categories in turn; no two have the same words."""
    return "".join(
        f"{noun} n{number} rojo,{quality},{language},{category}\n"
        for number in range(count)
        for category, noun in [list(NOUNS.items())[number % 3]]
    )


@pytest.fixture
def run(tmp_path, text_settings):
    """Prepares a CSV text, bytes or a folder; gives the metrics and the folder written."""

    def do(content, target="prepared", **changes):
        source = content
        if not hasattr(content, "is_dir"):
            source = tmp_path / "listing.csv"
            source.write_bytes(content if isinstance(content, bytes) else content.encode())
        settings = Prepare(
            **text_settings.model_dump()
            | {
                "source": str(source),
                "language": "all",
                "holdout_quality": "reliable",
                "validation_fraction": 0.2,
                "calibration_share": 0.5,
                "test_fraction": 0.3,
                "split_seed": 7,
                "min_rows": 1,
                "min_count": 1,
                "max_vocabulary": 500,
                "corrections": NO_CORRECTIONS,
                "reference": NO_REFERENCE,
                "drift_categories": 0.1,
                "drift_languages": 0.1,
                "drift_unknown_words": 0.02,
                "drift_length": 1,
                "drift_rejected": 0.05,
            }
            | changes
        )
        with atomic_folder(tmp_path / target) as folder:
            metrics = prepare(settings, folder)
        return metrics, tmp_path / target

    return do


def titles_of(folder, split, *, spelt=False):
    """(line, category, words) of each title of a split; unknown words are <unk> unless spelt."""
    titles = EncodedTitles.open(folder / split)
    words, labels = Vocabulary.read(folder / "vocabulary.tsv").words, read_labels(folder / "labels.txt")
    assert PAD not in titles.word_ids
    assert UNK not in titles.word_ids
    ids = np.split(titles.word_ids, titles.ends[:-1]) if len(titles) else []

    def word(number):
        if number > 0:
            return words[number]
        return titles.unknown_words[-1 - number] if spelt else words[UNK]

    return [
        (int(line), labels[label], " ".join(word(i) for i in row))
        for line, label, row in zip(titles.lines, titles.labels, ids, strict=True)
    ]


def lines_of(folder, split):
    return [line for line, *_ in titles_of(folder, split)]


def rejected_in(folder):
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        return [(int(row["line"]), row["reason"]) for row in csv.DictReader(stream)]


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Every way in which a row can leave, with its line in the file that `mixed` makes. Of the row with
# carriage returns, only the start is a line of its own, so it stands last.
LEAVING = {
    2: ("empty_title", b",reliable,spanish,TABLES"),
    3: ("title_too_long", b"x" * 61 + b",reliable,spanish,TABLES"),
    4: ("invalid_utf8", b"mes\xe1,reliable,spanish,TABLES"),
    5: ("wrong_number_of_fields", b"mesa,TABLES"),
    6: ("broken_csv", b'"mesa"x,reliable,spanish,TABLES'),
    7: ("unknown_language", b"mesa,reliable,english,TABLES"),
    8: ("no_words", b"!!! ...,reliable,spanish,TABLES"),
    39: ("duplicate", b"Mesa n0 ROJO!,reliable,spanish,TABLES"),
    40: ("duplicate", b"mesa-n0-rojo,unreliable,spanish,PHONES"),
    41: ("rare_category", b"barco azul,reliable,spanish,SHIPS"),
    42: ("rare_category", b"barco verde,reliable,spanish,SHIPS"),
    52: ("no_words", b'"!\r!\r!",reliable,spanish,TABLES'),
}
PORTUGUESE = set(range(43, 52))


def mixed():
    rows = dict(LEAVING)
    leaving = {line: row for line, (_, row) in rows.items()}
    filling = iter(
        (listing(30) + listing(9, "portuguese").replace("rojo", "roxo")).encode().splitlines()
    )
    lines = [leaving.get(line) or next(filling) for line in range(2, 53)]
    assert next(filling, None) is None
    return HEADER.encode() + b"\n".join(lines) + b"\n"


@pytest.mark.parametrize(
    ("language", "others"),
    [("all", set()), ("spanish", PORTUGUESE)],
    ids=["all languages", "one language"],
)
def test_every_row_read_is_in_one_count_and_every_unused_one_has_its_line_and_reason(
    run, language, others
):
    metrics, folder = run(mixed(), language=language, min_rows=3)
    rows = metrics["rows"]
    assert rows["read"] == 51 == sum(count for name, count in rows.items() if name != "read")
    assert rows.get("other_language", 0) == len(others)
    assert (rows["unusable"], rows["duplicate"], rows["rare_category"]) == (8, 2, 2)
    assert metrics["duplicates_of_another_category"] == 1
    assert sorted(rejected_in(folder)) == sorted((line, reason) for line, (reason, _) in LEAVING.items())
    assert metrics["rejected"]["no_words"] == 2
    assert sum(metrics["rejected"].values()) == len(LEAVING)
    used = [line for split in SPLITS for line in lines_of(folder, split)]
    assert sorted(used) == sorted(set(range(2, 53)) - set(LEAVING) - others)
    assert [rows[split] for split in SPLITS] == [len(lines_of(folder, split)) for split in SPLITS]


def test_what_is_written_can_be_read_back_and_replaces_what_was_there(run, text_settings, tmp_path):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "old.txt").write_text("old")
    metrics, folder = run(HEADER + listing(30))
    assert read_labels(folder / "labels.txt") == sorted(NOUNS)
    assert (metrics["categories"], metrics["vocabulary"]) == (
        3,
        len(Vocabulary.read(folder / "vocabulary.tsv")),
    )
    assert json.loads((folder / "text.json").read_text()) == text_settings.model_dump()
    assert [metrics["rows"][split] for split in SPLITS] == [15, 3, 3, 9]
    for line, label, words in titles_of(folder, "train"):
        assert words == f"{NOUNS[label]} n{line - 2} rojo"
    assert sorted(path.name for path in folder.iterdir()) == [
        "calibration", "labels.txt", "profile.json", "rejected.csv", "test", "text.json", "train",
        "validation", "vocabulary.tsv",
    ]  # fmt: skip


def test_words_come_from_train_alone(run):
    metrics, folder = run(HEADER + listing(30))
    in_train = {words.split()[1] for _, _, words in titles_of(folder, "train")}
    assert {
        word for word in Vocabulary.read(folder / "vocabulary.tsv").words if word[0] == "n"
    } == in_train
    for split in SPLITS[1:]:
        for _, label, words in titles_of(folder, split):
            assert words == f"{NOUNS[label]} <unk> rojo"
    assert metrics["unknown_words"] == {"train": 0.0} | dict.fromkeys(SPLITS[1:], 0.333333)


@pytest.mark.parametrize("min_count", [1, 3, 5])
@pytest.mark.parametrize("slab", [1_000_000, 4])
def test_each_split_keeps_the_letters_of_the_words_it_has_and_the_vocabulary_lacks(
    run, monkeypatch, min_count, slab
):
    monkeypatch.setattr(reading, "SLAB_ROWS", slab)
    # Numbers n stand in one row each, numbers t in two or three, one word twice in one title.
    rows = [f"{noun} n{k} t{k % 13}" for k in range(36) for noun in [list(NOUNS.values())[k % 3]]]
    rows[7] += " 日本 日本"
    lines = [f"{row},reliable,spanish,{list(NOUNS)[k % 3]}\n" for k, row in enumerate(rows)]
    metrics, folder = run(HEADER + "".join(lines), min_count=min_count)
    vocabulary = Vocabulary.read(folder / "vocabulary.tsv").words
    in_train = Counter(
        word for _, _, words in titles_of(folder, "train", spelt=True) for word in words.split()
    )
    assert set(vocabulary[2:]) == {word for word, count in in_train.items() if count >= min_count}
    for split in SPLITS:
        titles = titles_of(folder, split, spelt=True)
        assert [words for _, _, words in titles] == [rows[line - 2] for line, *_ in titles]
        own = [word for _, _, words in titles for word in words.split()]
        unknown = EncodedTitles.open(folder / split).unknown_words
        assert len(unknown) == len(set(unknown))
        assert set(unknown) == set(own) - set(vocabulary)
        share = sum(word in set(unknown) for word in own) / len(own)
        assert metrics["unknown_words"][split] == pytest.approx(share, abs=1e-6)
    assert bool(EncodedTitles.open(folder / "train").unknown_words) == (min_count > 1)


def test_the_same_words_are_never_in_two_splits_and_a_reliable_row_outlives_the_others(run):
    titles = [f"{noun} n{number}" for number in range(12) for noun in NOUNS.values()]
    categories = list(NOUNS) * 12
    rows = [f"{t.upper()}!,unreliable,spanish,{c}" for t, c in zip(titles, categories, strict=True)]
    rows += [f"{t},reliable,spanish,{c}" for t, c in zip(titles, categories, strict=True)]
    rows += [f"{t.title()},reliable,portuguese,{c}" for t, c in zip(titles, categories, strict=True)]
    metrics, folder = run(HEADER + "\n".join(rows) + "\n")
    used = [line for split in SPLITS for line in lines_of(folder, split)]
    assert sorted(used) == list(range(38, 74))
    assert metrics["rows"]["duplicate"] == 72


def test_a_category_of_one_row_goes_to_train_unless_it_is_too_rare(run):
    content = HEADER + listing(12) + "barco,reliable,spanish,SHIPS\n"
    _, folder = run(content)
    assert "SHIPS" in [label for _, label, _ in titles_of(folder, "train")]
    metrics, folder = run(content, min_rows=2)
    assert read_labels(folder / "labels.txt") == sorted(NOUNS)
    assert metrics["rows"]["rare_category"] == 1


@pytest.fixture
def course(tmp_path):
    """A folder of the course's files for Spanish, from (title, category) pairs a split."""

    def build(**splits):
        folder = tmp_path / "course"
        folder.mkdir()
        for split in GIVEN_SPLITS:
            lines = [
                json.dumps({"title": title, "category": category, "language": "spanish"})
                for title, category in splits[split]
            ]
            (folder / f"spanish.{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        return folder

    return build


def test_given_splits_stay_and_the_held_out_row_outlives_its_like_in_train(run, course):
    folder = course(
        train=[("mesa a", "T"), ("mesa b", "T"), ("funda c", "F"), ("mesa d", "T"), ("Mesa d", "T")],
        validation=[("mesa b", "T"), ("funda e", "F"), ("barco y", "S")],
        test=[("mesa a", "T"), ("funda e", "F"), ("nuevo c", "F"), ("barco z", "S")],
    )
    metrics, written = run(folder)
    assert titles_of(written, "train") == [(3, "F", "funda c"), (4, "T", "mesa d")]
    assert titles_of(written, "validation") == [(1, "T", "mesa <unk>")]
    assert titles_of(written, "test") == [
        (1, "T", "mesa <unk>"),
        (2, "F", "funda <unk>"),
        (3, "F", "<unk> c"),
    ]
    # A category that train lacks cannot be learned; min_rows looks at train alone.
    assert metrics["rows"] == {
        "read": 12,
        "unusable": 0,
        "duplicate": 4,
        "rare_category": 2,
        "same_words_as_held_out": 0,
        "train": 2,
        "validation": 1,
        "calibration": 0,
        "test": 3,
    }
    with (written / "rejected.csv").open(encoding="utf-8") as stream:
        told = [(row["file"], row["line"], row["excerpt"]) for row in csv.DictReader(stream)]
    assert ("spanish.train.jsonl.gz", "2", "same title as line 1 of spanish.validation.jsonl.gz") in told


def test_a_given_test_split_keeps_its_own_repetitions(run, course):
    folder = course(
        train=[("mesa c", "T"), ("mesa c", "T"), ("funda d", "F")],
        validation=[("mesa e", "T")],
        test=[("mesa a", "T"), ("Mesa a", "T"), ("funda b", "F")],
    )
    rows = run(folder)[0]["rows"]
    assert (rows["train"], rows["validation"], rows["test"], rows["duplicate"]) == (2, 1, 3, 1)


def test_a_given_split_can_lose_all_its_rows(run, course):
    both = [("mesa a", "T"), ("funda b", "F")]
    folder = course(train=[("mesa c", "T"), ("funda d", "F")], validation=both, test=both)
    metrics, written = run(folder)
    assert metrics["rows"]["validation"] == len(EncodedTitles.open(written / "validation")) == 0
    nothing = dict.fromkeys(("validation", "calibration"))
    assert metrics["unknown_words"] == {"train": 0.0, **nothing, "test": 0.5}


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        pytest.param(HEADER, {}, "has no usable rows of language all: 0 rows read", id="header alone"),
        pytest.param(
            HEADER + ",reliable,spanish,A\n", {}, "set aside: {'empty_title': 1}", id="no usable row"
        ),
        pytest.param(
            HEADER + listing(9),
            {"language": "portuguese"},
            "rows of language portuguese: 9 rows read, set aside: {}, languages: {'spanish': 9}",
            id="no row of the language",
        ),
        pytest.param(
            "title,category\nmesa,A\nfunda,B\n",
            {"language": "spanish"},
            "languages: {'unspecified': 2}",
            id="no languages at all",
        ),
        pytest.param(
            HEADER + listing(9).replace("CASES", "TABLES").replace("PHONES", "TABLES"),
            {},
            "has 1 categories of at least 1 rows (prepare.min_rows); a classifier needs two",
            id="one category",
        ),
        pytest.param(
            HEADER + listing(9), {"min_rows": 4}, "has 0 categories of at least 4", id="all rare"
        ),
        pytest.param(
            HEADER + listing(9),
            {"min_count": 99},
            "no word occurs 99 times in train",
            id="no word known",
        ),
        pytest.param(
            gzip.compress(HEADER.encode() + listing(900).encode())[:-99], {}, "is damaged near", id="cut"
        ),
    ],
)
def test_on_an_error_the_old_content_stays_and_nothing_else_is_left(
    run, tmp_path, content, changes, message
):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "old.txt").write_text("old")
    with pytest.raises(ValueError, match=r"listing\.csv") as caught:
        run(content, **changes)
    assert message in str(caught.value)
    assert content_of(tmp_path / "prepared") == {"old.txt": b"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["listing.csv", "prepared"]


def test_a_place_that_cannot_be_written_to_is_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*file/prepared: Not a directory"):
        run(HEADER + listing(9), target="file/prepared")
    with pytest.raises(ValueError, match=r"cannot write .*file/m\.json"):
        write_json(tmp_path / "file" / "m.json", {"a": 1})


def test_the_same_input_gives_the_same_bytes_and_another_seed_another_split(run):
    content = mixed()
    metrics, folder = run(content, target="one")
    again, other = run(content, target="two"), run(content, target="three", split_seed=8)
    assert (again[0], content_of(again[1])) == (metrics, content_of(folder))
    assert other[0]["rows"] == metrics["rows"]
    assert lines_of(other[1], "test") != lines_of(folder, "test")


def test_the_order_of_rows_does_not_decide_which_title_is_held_out(run):
    rows = listing(30).splitlines()
    _, one = run(HEADER + "\n".join(rows), target="one")
    _, two = run(HEADER + "\n".join(rows[::-1]), target="two")
    for split in SPLITS:
        assert sorted(lines_of(one, split)) == sorted(33 - line for line in lines_of(two, split))
    assert (one / "vocabulary.tsv").read_bytes() == (two / "vocabulary.tsv").read_bytes()


@pytest.mark.parametrize("language", ["all", "portuguese"])
def test_chunks_and_worker_processes_do_not_show_in_the_bytes(run, monkeypatch, language):
    """One chunk in this process; chunks of 3, some of them empty after the checks, in workers."""
    content = HEADER + listing(30) + listing(9, "portuguese").replace("rojo", "roxo") + ",,,\n" * 9
    content += listing(9).replace("rojo", "verde")
    metrics, one = run(content, target="one", language=language)
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 3)
    monkeypatch.setattr(reading, "SLAB_ROWS", 5)
    again, two = run(content, target="two", language=language)
    assert again == metrics
    assert content_of(two) == content_of(one)
    assert rejected_in(two) == [(line, "empty_title") for line in range(41, 50)]


def test_damage_behind_the_first_chunks_ends_the_workers_and_leaves_nothing(run, monkeypatch, tmp_path):
    monkeypatch.setattr("titles.listings.rows.CHUNK_ROWS", 50)
    zipped = gzip.compress(HEADER.encode() + listing(2000).encode())
    with pytest.raises(ValueError, match=r"is damaged near line 1\d{3}"):
        run(zipped[: len(zipped) * 4 // 5])
    assert [path.name for path in tmp_path.iterdir()] == ["listing.csv"]


READINGS = [
    {"digits": "zero"},
    {"digits": "drop"},
    {"strip_accents": False},
    {"drop_seller_noise": True},
    {"max_words": 2},
    {"min_count": 3},
    {"max_vocabulary": 4},
]


def told_apart():
    """Rows of three categories; many differ in a digit, an accent, a late word or what sellers add."""
    kinds = ["roja", "azul", "verde", "gris", "negra", "rosa", "lila", "blanca", "beige", "ocre"]
    titles = {
        f"{noun} {kind}{end}": category
        for category, noun in NOUNS.items()
        for kind in kinds
        for end in ("", " s10", " s20", " s2", " envío gratis", " usada", " ñandú", " ñandu s10", " x x")
    }
    titles |= {f"oferta {number}": list(NOUNS)[number % 3] for number in range(30)}
    return HEADER + "".join(f"{title},reliable,spanish,{name}\n" for title, name in titles.items())


@pytest.mark.parametrize("reading_changes", READINGS, ids=str)
def test_held_out_titles_are_the_same_however_titles_are_read(run, reading_changes):
    content = told_apart()
    _, plain = run(content, target="plain")
    metrics, other = run(content, target="other", **reading_changes)
    for split in SPLITS[1:]:
        one, two = EncodedTitles.open(plain / split), EncodedTitles.open(other / split)
        assert one.places() == two.places()
        assert one.keys.tolist() == two.keys.tolist()
        assert one.labels.tolist() == two.labels.tolist()
    assert set(lines_of(other, "train")) <= set(lines_of(plain, "train"))
    rows = metrics["rows"]
    assert rows["read"] == sum(count for name, count in rows.items() if name != "read")
    gone = sorted(set(lines_of(plain, "train")) - set(lines_of(other, "train")))
    told = [line for line, reason in rejected_in(other) if reason == "same_words_as_held_out"]
    assert sorted(told) == gone
    assert rows["same_words_as_held_out"] == len(gone)


@pytest.mark.parametrize("reading_changes", READINGS, ids=str)
def test_no_title_of_train_has_the_words_of_a_held_out_one(run, reading_changes):
    _, folder = run(told_apart(), **reading_changes)
    words = [{words for *_, words in titles_of(folder, split, spelt=True)} for split in SPLITS]
    assert not words[0] & set().union(*words[1:])


def test_a_title_that_is_left_without_words_stays_in_its_split(run):
    content = (
        HEADER
        + listing(30)
        + "".join(
            f"envio gratis {number} cuotas,reliable,spanish,{'TABLES' if number % 2 else 'CASES'}\n"
            for number in range(3, 60)
        )
    )
    _, plain = run(content, target="plain")
    _, folder = run(content, target="other", drop_seller_noise=True)
    for split in SPLITS[1:]:
        empty = [line for line, _, words in titles_of(folder, split) if words == ""]
        assert empty == [line for line in lines_of(plain, split) if line > 31]
        assert empty
    assert "" not in {words for *_, words in titles_of(folder, "train")}
    assert not [reason for _, reason in rejected_in(folder) if reason == "no_words"]


def test_a_source_of_titles_without_words_is_refused(run):
    content = HEADER + "".join(
        f"{n} {k},reliable,spanish,{c}\n" for n in range(40) for k, c in enumerate(NOUNS)
    )
    with pytest.raises(ValueError, match="no word occurs 1 times in train"):
        run(content, digits="drop")


def test_rows_of_several_files_have_the_names_of_their_files(run, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("b.csv", "a.csv", "newline\nin name.csv"):
        noun = name[0] * 3
        rows = [f"{noun} n{k},reliable,spanish,{list(NOUNS)[k % 3]}\n" for k in range(30)]
        (folder / name).write_text(HEADER + "".join(rows) + "Aaa n3,reliable,spanish,TABLES\n")
    metrics, written = run(folder)
    assert metrics["rows"]["duplicate"] == 3
    titles = EncodedTitles.open(written / "test")
    assert titles.file_names == ["a.csv", "b.csv", "newline\nin name.csv"]
    for (file, line), row in zip(titles.places(), titles_of(written, "test", spelt=True), strict=True):
        assert row[2] == f"{file[0] * 3} n{line - 2}"
    assert len({file for file, _ in titles.places()}) == 3


def test_categories_that_lose_all_titles_of_train_are_named(run, course, capsys):
    folder = course(
        train=[("funda roja", "F"), ("mesa c", "T"), ("mesa d", "T")],
        validation=[("mesa e", "T")],
        test=[("funda roja envio gratis", "F"), ("mesa a", "T")],
    )
    metrics, written = run(folder, drop_seller_noise=True)
    assert (metrics["rows"]["train"], metrics["rows"]["same_words_as_held_out"]) == (2, 1)
    assert "warning: 1 categories have no title in train, which validation and test have: F\n" in (
        capsys.readouterr().err
    )
    assert rejected_in(written) == [(1, "same_words_as_held_out")]
    assert "same words as line 1 of spanish.test.jsonl.gz" in (written / "rejected.csv").read_text()
