"""Names beside an output belong to the user, and an output is whole, in its place, with its mode."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from hostile.harness import Place, case, cases

KIND = "writers"
TITLES_FILE = "word2 word3\nword4\n" * 50
TEST_FILE = "id,title,language\n0,word2,spanish\n1,word3,portuguese\n"


def a_file(path: Path) -> None:
    path.write_text("mine")


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "diary.txt").write_text("mine")


def a_link(path: Path) -> None:
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to("elsewhere")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_a_folder(path: Path) -> None:
    a_folder(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_read_only_folder(path: Path) -> None:
    a_folder(path)
    path.chmod(0o555)


@cases(
    KIND,
    {
        f"sample beside {make.__name__[2:]} named {name}": (name, make)
        for name, make in [
            ("out.csv.partial", a_file),
            ("out.csv.partial", a_folder),
            ("out.csv.partial", a_link),
            ("out.csv.partial", a_dangling_link),
            ("out.csv.partial", a_pipe),
            ("out.csv.partial", a_read_only_folder),
            (".out.csv.partial", a_file),
            ("out.csv.old.partial", a_folder),
            ("out.csv.tmp", a_file),
        ]
    },
)
def beside_a_file(place: Place, name: str, make: Callable[[Path], None]) -> None:
    make(place / name)
    place.done("sample", "out.csv", "--rows", "200", makes=["out.csv"], seconds=45)
    assert len((place / "out.csv").read_text().splitlines()) == 201


@cases(
    KIND,
    {
        f"prepare beside {make.__name__[2:]} named data/{name}": (name, make)
        for name, make in [
            ("prepared.partial", a_folder),
            ("prepared.old.partial", a_folder),
            ("prepared.old.partial", a_file),
            ("prepared.partial", a_link_to_a_folder),
            ("prepared.old", a_folder),
        ]
    },
)
def beside_a_folder(place: Place, name: str, make: Callable[[Path], None]) -> None:
    place.parameters()
    place.listing()
    (place / "data").mkdir()
    for _ in range(2):  # where there is nothing, and where there is an older one
        if not os.path.lexists(place / f"data/{name}"):
            make(place / f"data/{name}")
        place.done("prepare", makes=["data/prepared", "metrics"])
    assert (place / "data/prepared/train").is_dir()


@cases(
    KIND,
    {
        "predict from an input named as its partial": (
            "out.csv.partial",
            TITLES_FILE,
            ("predict", "--format", "lines", "--file", "out.csv.partial", "--out", "out.csv"),
        ),
        "submit from an input named as its partial": (
            "out.csv.partial",
            TEST_FILE,
            ("submit", "out.csv.partial", "--out", "out.csv"),
        ),
        "predict onto its own input": (
            "out.csv",
            "title\n" + TITLES_FILE,
            ("predict", "--file", "out.csv", "--out", "out.csv"),
        ),
        "explain beside a file named as its partial": (
            "out.csv.partial",
            "mine",
            ("explain", "word2", "--html", "out.csv"),
        ),
    },
)
def inputs_of_such_names(place: Place, name: str, content: str, command: tuple[str, ...]) -> None:
    place.models()
    place.write(name, content)
    place.done(*command, makes=["out.csv"])
    assert (place / "out.csv").stat().st_size > 20
    if command[0] == "predict":
        assert len((place / "out.csv").read_text().splitlines()) == 101


@case(KIND, "sample whose truth is named as the other's partial")
def two_outputs_of_such_names(place: Place) -> None:
    place.done(
        "sample", "a.csv", "--rows", "50", "--truth", "a.csv.partial", makes=["a.csv", "a.csv.partial"]
    )
    assert len((place / "a.csv").read_text().splitlines()) == 51
    assert len((place / "a.csv.partial").read_text().splitlines()) >= 50


@cases(
    KIND,
    {
        "sample": ("sample", "one.csv", "--truth", "one.csv"),
        "sample by another path": ("sample", "one.csv", "--truth", "./sub/../one.csv"),
    },
)
def one_name_for_two(place: Place, *command: str) -> None:
    (place / "sub").mkdir()
    place.refused(*command, "--rows", "50", code=1)


@case(KIND, "export onnx beside a folder named out.partial and one named out.old.partial")
def beside_an_export(place: Place) -> None:
    place.models()
    a_folder(place / "out.partial")
    a_folder(place / "out.old.partial")
    place.done("export", "onnx", "--out", "out", makes=["out"])
    place.done("export", "onnx", "--out", "out", makes=["out"])
    assert (place / "out/model.onnx").stat().st_size > 1000


@cases(KIND, {"0600": 0o600, "0640": 0o640, "0664": 0o664, "0755": 0o755})
def mode_is_kept(place: Place, mode: int) -> None:
    place.write("out.csv", "old", mode)
    place.done("sample", "out.csv", "--rows", "20", makes=["out.csv"])
    assert stat.S_IMODE((place / "out.csv").stat().st_mode) == mode
    assert (place / "out.csv").stat().st_size > 100


@case(KIND, "an output is private while it grows, where the old one is")
def mode_while_it_grows(place: Place) -> None:
    place.write("out.csv", "old", 0o600)
    process = place.start("sample", "out.csv", "--rows", "60000", stderr=subprocess.DEVNULL)
    seen = set()
    while process.poll() is None:
        for path in place.folder.iterdir():
            try:
                seen.add((path.name, stat.S_IMODE(path.stat().st_mode)))
            except FileNotFoundError:
                continue
    assert process.returncode == 0
    # The metadata has no row.
    seen = {(name, mode) for name, mode in seen if not name.endswith((".json", ".partial"))} | {
        (name, mode) for name, mode in seen if name.startswith(".out.csv")
    }
    assert not any(mode & 0o077 for _, mode in seen), f"modes were {seen}"


@cases(KIND, {f"round {number}": number for number in range(3)})
def two_writers(place: Place, number: int) -> None:
    size = str(3000 + 40000 * number)
    commands = [("sample", "out.csv", "--rows", size, "--seed", seed) for seed in "123"]
    processes = [place.start(*command, stderr=subprocess.PIPE) for command in commands]
    for process in processes:
        _, told = process.communicate(timeout=180)
        assert process.returncode == 0, told[-200:]
    assert {path.name for path in place.folder.iterdir()} == {"out.csv", "out.croissant.json"}
    found = (place / "out.csv").read_bytes()
    alone = []
    for seed in "123":
        place.done("sample", "alone.csv", "--rows", size, "--seed", seed, makes=["alone.csv"])
        alone.append((place / "alone.csv").read_bytes())
    assert found in alone, "the result is a mixture"


@case(KIND, "three stages that write one folder")
def two_writers_of_a_folder(place: Place) -> None:
    place.parameters()
    place.listing()
    processes = [place.start("prepare", stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, told = process.communicate(timeout=180)
        assert process.returncode == 0, told.decode()[-200:]
    assert sorted(path.name for path in (place / "data").iterdir()) == ["prepared"]
    together = {name: value for name, value in place.entries().items() if name.startswith("data/")}
    place.done("prepare", makes=["data", "metrics"])
    assert together == {k: v for k, v in place.entries().items() if k.startswith("data/")}


def in_cache(place: Place) -> Path:
    return place.write(
        ".cache/files/md5/ab/" + "0123456789abcdef" * 1 + "01234567890123", "object", 0o444
    )


@cases(KIND, {"symbolic link": True, "hard link": False})
def link_into_the_cache(place: Place, symbolic: bool) -> None:
    kept = in_cache(place)
    (place / "out.csv").symlink_to(kept) if symbolic else os.link(kept, place / "out.csv")
    place.done("sample", "out.csv", "--rows", "20", makes=["out.csv"])
    assert kept.read_text() == "object"
    assert not (place / "out.csv").is_symlink()
    assert (place / "out.csv").stat().st_size > 100
    assert (place / "out.csv").stat().st_mode & stat.S_IWUSR, "the output is read-only, as the object"


@case(KIND, "a chain of links: the user's own to one into the cache")
def chain_into_the_cache(place: Place) -> None:
    kept = in_cache(place)
    (place / "inner.csv").symlink_to(kept)
    (place / "out.csv").symlink_to("inner.csv")
    place.done("sample", "out.csv", "--rows", "20", makes=["inner.csv"])
    assert kept.read_text() == "object"
    assert (place / "out.csv").is_symlink()
    assert (place / "out.csv").stat().st_size > 100


@cases(KIND, {"that exists": True, "that does not exist": False})
def own_link(place: Place, exists: bool) -> None:
    (place / "far/away").mkdir(parents=True)
    if exists:
        place.write("far/away/real.csv", "old", 0o600)
    (place / "far/hop.csv").symlink_to("away/real.csv")
    (place / "out.csv").symlink_to(place / "far/hop.csv")
    place.done("sample", "out.csv", "--rows", "20", makes=["far/away/real.csv"])
    assert (place / "far/away/real.csv").stat().st_size > 100


@case(KIND, "prepare through the user's own link to another disk's folder")
def own_link_to_a_folder(place: Place) -> None:
    place.parameters()
    place.listing()
    (place / "disk/prepared").mkdir(parents=True)
    (place / "data").mkdir()
    (place / "data/prepared").symlink_to("../disk/prepared")
    place.done("prepare", makes=["disk/prepared", "metrics"])
    assert (place / "disk/prepared/train").is_dir()


@case(KIND, "links without end")
def loop_of_links(place: Place) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    place.refused("sample", "a", "--rows", "20")
    place.refused("sample", "a/x.csv", "--rows", "20")


@cases(
    KIND,
    {
        "of 255 bytes": "x" * 251 + ".csv",
        "of 250 bytes in UTF-8": "ñ" * 123 + ".csv",
        "with a line feed": "a\nb.csv",
        "with an escape sequence": "\x1b[31mred.csv",
        "that is not UTF-8": os.fsdecode(b"\xff\xfe.csv"),
        "with a glob": "[a-z]*?.csv",
        "that starts with a point": ".csv",
        "that starts with a dash": "./-out.csv",
        "with a percent sign and braces": "{0}%s%(x)s.csv",
    },
)
def odd_name(place: Place, name: str) -> None:
    place.done("sample", name, "--rows", "20", makes=[str(Path(name))])
    assert (place / name).stat().st_size > 100


@case(KIND, "a name too long for any file")
def overlong_name(place: Place) -> None:
    place.refused("sample", "x" * 300 + ".csv", "--rows", "20", says="too long")
    place.refused("sample", "d/" * 3000 + "a.csv", "--rows", "20", says="too long")
