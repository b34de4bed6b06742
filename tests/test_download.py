"""What a download leaves, verifies and unpacks."""

import bz2
import hashlib
import json
import resource
import tarfile
from functools import partial
from pathlib import Path

import pytest

from download_server import (  # noqa: F401, fixtures among them
    COURSE,
    LISTINGS,
    SBW,
    VECTORS,
    fetch,
    here,
    member,
    names,
    packed,
    refusal,
    server,
    serving,
)
from titles import cli
from titles.data import files
from titles.datasets import archive, download
from titles.datasets.public import DATASETS
from titles.listings import sources

pytestmark = pytest.mark.pipeline  # real servers on loopback


def test_a_file_comes_whole_and_with_a_record_of_what_it_is(server, fetch, here):
    server.last_modified = "Tue, 01 Oct 2019 00:00:00 GMT"
    told = fetch()
    assert (here / SBW).read_bytes() == VECTORS
    assert names(here) == [SBW, SBW + ".download.json"]
    sha256 = hashlib.sha256(VECTORS).hexdigest()
    assert json.loads((here / (SBW + ".download.json")).read_text()) == {
        "address": f"{server.url}/{SBW}",
        "etag": f'"{hashlib.md5(VECTORS).hexdigest()}"',
        "last_modified": "Tue, 01 Oct 2019 00:00:00 GMT",
        "size": len(VECTORS),
        "sha256": sha256,
    }
    assert f"fetched from {server.url}/{SBW}, sha256 {sha256}" in told


@pytest.mark.parametrize("link", [False, True])
def test_a_part_of_another_program_stays(fetch, here, link):
    here.mkdir(exist_ok=True)
    part = here / (SBW + ".part")
    if link:
        (here / "target").write_bytes(b"mine")
        part.symlink_to("target")
        (here / (SBW + ".part.json")).write_text("{}")
    else:
        part.write_bytes(b"mine")
    assert f"{part} is there, but this command did not write it" in refusal(fetch)
    assert part.read_bytes() == b"mine"
    assert part.is_symlink() == link


def test_a_file_is_on_the_disk_before_it_has_its_name(fetch, here, monkeypatch):
    synced = []
    real = files.to_disk

    def spy(path):
        real(path)
        synced.append((path.relative_to(here).parts[-1:], SBW in names(here)))

    monkeypatch.setattr(files, "to_disk", spy)
    fetch()
    records = [((SBW + end,), False) for end in (".part.json", ".download.json")]
    assert synced == [
        records[0],
        ((), False),
        records[1],
        ((), False),
        ((SBW + ".part",), False),
        ((), True),
    ]


@pytest.mark.parametrize(
    ("name", "path", "settings"),
    [
        ("course", COURSE, "-S prepare.source={} -S prepare.language=spanish"),
        ("challenge", "train.csv.gz", "-S prepare.source={}"),
        ("sbw", SBW, "-S embed.method=pretrained -S embed.pretrained={} -S embed.dimension=300"),
    ],
)
def test_the_message_names_the_next_commands(fetch, here, name, path, settings):
    lines = fetch(name).splitlines()
    path = here / path
    assert path.exists()
    assert lines[-3:] == ["next:", f"  dvc add {path}", f"  dvc exp run {settings.format(path)}"]


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_second_call_asks_the_server_for_nothing(server, fetch, here, name):
    first = fetch(name)
    before, asked = names(here), len(server.asked)
    second = fetch(name)
    assert (names(here), len(server.asked)) == (before, asked)
    assert second.count("is there and whole, nothing to do") == len(DATASETS[name].files)
    assert second.splitlines()[-3:] == first.splitlines()[-3:]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc",
        "host/x",
        "",
        "http://",
        "http://h:port/x",
        "http://h/a b",
        "http://h/ñ",
    ],
)
def test_an_address_of_another_kind_is_refused(tmp_path, url):
    assert "is not an address: " in refusal(partial(download.download, "sbw", tmp_path, url))


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path):
    assert "secret" not in refusal(
        partial(download.download, "sbw", tmp_path, "https://me:secret@host/x")
    )


@pytest.mark.parametrize("content", [VECTORS[:-1], VECTORS[:-1] + b"?"], ids=["size", "checksum"])
def test_a_file_that_is_not_what_was_fetched_is_an_error(server, fetch, here, content):
    fetch()
    (here / SBW).write_bytes(content)
    told = refusal(fetch)
    assert "it is not what was fetched. Remove" in told
    assert f"{here / SBW} has" in told
    assert (here / SBW).read_bytes() == content
    assert len(server.asked) == 1


@pytest.mark.parametrize("record", [None, "[]", "{"])
def test_a_file_without_a_good_record_is_left_alone(server, fetch, here, record):
    here.mkdir()
    (here / SBW).write_text("mine")
    if record:
        (here / (SBW + ".download.json")).write_text(record)
    assert ("is damaged" if record else "move it away") in refusal(fetch)
    assert (here / SBW).read_text() == "mine"
    assert not server.asked


def test_two_downloads_into_one_folder_do_not_mix(fetch, here):
    here.mkdir()
    with download._locked(here):
        assert f"another download into {here} is running" in refusal(fetch)
    fetch()


@pytest.mark.parametrize("prefix", [COURSE + "/", "", "./", f"./{COURSE}/"])
def test_the_course_unpacks_to_a_folder_that_prepare_reads(server, fetch, here, prefix):
    folder = member(prefix or "x", kind=tarfile.DIRTYPE)
    server.files[COURSE + ".tar.bz2"] = packed(folder, prefix=prefix)
    fetch("course")
    # The archive and its record are gone.
    assert sorted(path.name for path in here.iterdir()) == [COURSE, COURSE + ".download.json"]
    rows = [
        (chunk.split, title)
        for chunk in sources.read(here / COURSE, "spanish", 100)
        for title in chunk.titles
    ]
    assert rows == [(split, f"Funda {split}") for split in ("train", "validation", "test")]
    record = json.loads((here / (COURSE + ".download.json")).read_text())
    assert record["sha256"] == hashlib.sha256(server.files[COURSE + ".tar.bz2"]).hexdigest()
    assert {name: values["sha256"] for name, values in record["files"].items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in LISTINGS.items()
    }


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        pytest.param(member("../evil", b"x"), "'../evil' lies outside", id="above"),
        pytest.param(member(COURSE + "/a/../../evil", b"x"), "lies outside", id="above, later"),
        pytest.param(member("/tmp/titles-evil", b"x"), "lies outside", id="absolute"),
        pytest.param(
            member("evil", kind=tarfile.SYMTYPE, link="/etc"), "neither a plain file", id="symlink"
        ),
        pytest.param(
            member("evil", kind=tarfile.LNKTYPE, link=f"{COURSE}/spanish.test.jsonl.gz"),
            "neither a plain file",
            id="hardlink",
        ),
        pytest.param(member("evil", kind=tarfile.CHRTYPE), "neither a plain file", id="device"),
        pytest.param(member("evil", kind=tarfile.BLKTYPE), "neither a plain file", id="block device"),
        pytest.param(member("evil", kind=tarfile.FIFOTYPE), "neither a plain file", id="pipe"),
        pytest.param(
            member(COURSE, kind=tarfile.SYMTYPE, link=".."), "neither a plain file", id="link as folder"
        ),
        pytest.param(
            member("x", b"9" * 70_000, kind=tarfile.XHDTYPE), "header of 70000 bytes", id="pax bomb"
        ),
        pytest.param(
            member("x", b"9" * 70_000, kind=tarfile.XGLTYPE), "header of 70000", id="global pax bomb"
        ),
        pytest.param(
            member("x", b"9" * 70_000, kind=tarfile.GNUTYPE_LONGNAME), "header of 70000", id="name bomb"
        ),
        pytest.param(member("spanish.test.jsonl.gz", b"x"), "in the way", id="twice"),
        pytest.param(member(COURSE, b"x"), "in the way", id="file for the folder"),
        pytest.param(member("a/" * 1900 + "x", b"x"), "in more than 32 folders", id="depth"),
        pytest.param(member("big", b"x" * 9000), "unpacks to more than 9000 bytes", id="bytes"),
    ],
)
def test_an_unsafe_archive_is_refused_and_leaves_nothing(
    server, fetch, here, monkeypatch, extra, reason
):
    monkeypatch.setattr(archive, "MAX_BYTES", 9000)
    server.files[COURSE + ".tar.bz2"] = packed(extra)
    told = refusal(partial(fetch, "course"))
    assert "the archive is refused" in told
    assert reason in told
    assert names(here.parent) == ["here"]
    assert not Path("/tmp/titles-evil").exists()


def test_an_archive_of_too_many_members_is_refused(fetch, here, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    assert "more than 2 members" in refusal(partial(fetch, "course"))
    assert names(here) == []


def test_a_bomb_of_headers_is_refused_in_little_memory(server, fetch, here):
    """tarfile reads a header whole: a few hundred bytes of archive would fill gigabytes of memory."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    packer = bz2.BZ2Compressor()
    archive = packer.compress(header.tobuf(tarfile.GNU_FORMAT))
    for _ in range(32):
        archive += packer.compress(bytes(2**20))
    server.files[COURSE + ".tar.bz2"] = archive + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header of 8589934592 bytes" in refusal(partial(fetch, "course"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB
    assert names(here) == []


def test_headers_one_after_another_without_end_are_refused(server, fetch, here):
    headers = [member("x", b"11 path=a\n\n", kind=tarfile.XHDTYPE)] * 3000
    server.files[COURSE + ".tar.bz2"] = packed(*headers)
    assert "the archive is refused" in refusal(partial(fetch, "course"))
    assert names(here) == []


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        pytest.param(
            packed(listings={"spanish.test.jsonl.gz": b"x"}), "it lacks spanish.train", id="other files"
        ),
        pytest.param(
            bz2.compress(bz2.decompress(packed())[:700]), "unexpected end", id="cut before packing"
        ),
        pytest.param(bz2.compress(b"no tar" * 200), "", id="no tar"),
    ],
)
def test_an_archive_of_something_else_is_refused(server, fetch, here, archive, reason):
    server.files[COURSE + ".tar.bz2"] = archive
    assert reason in refusal(partial(fetch, "course"))
    assert names(here) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_unpacking_that_stops_leaves_nothing_and_goes_on_from_the_archive(
    server, fetch, here, monkeypatch, error
):
    def stop(tar, info, folder, **options):
        (folder / "half").touch()
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(tarfile.TarFile, "extract", stop)
        with pytest.raises((ValueError, KeyboardInterrupt)) as caught:
            fetch("course")
    if caught.type is ValueError:
        assert "No space left on device. The archive is kept" in str(caught.value)
    assert names(here) == [COURSE + ".tar.bz2", COURSE + ".tar.bz2.download.json"]
    fetch("course")
    assert len(server.asked) == 1
    assert names(here / COURSE) == sorted(LISTINGS)


@pytest.mark.parametrize("content", [None, b"other"], ids=["missing", "changed"])
def test_a_course_folder_that_is_not_what_was_fetched_is_an_error(fetch, here, content):
    fetch("course")
    file = here / COURSE / "spanish.train.jsonl.gz"
    file.unlink() if content is None else file.write_bytes(content)
    told = refusal(partial(fetch, "course"))
    assert str(file) in told
    assert f"Remove {here / COURSE} and" in told


def test_the_command_exits_as_the_others_do(server, here, capsys):
    arguments = ["--into", str(here), "--url", server.url]
    assert cli.main(["download", "challenge", *arguments]) == 0
    assert f"dvc add {here}/train.csv.gz" in capsys.readouterr().out
    (here / "test.csv").write_text("other")
    assert cli.main(["download", "challenge", *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {here}/test.csv has 5 bytes, expected ")
    with pytest.raises(SystemExit) as caught:
        cli.main(["download", "everything"])
    assert caught.value.code == 2


def test_every_dataset_has_an_https_address_and_a_folder_of_the_project():
    for dataset in DATASETS.values():
        assert download._checked(dataset.base).startswith("https://")
        assert str(dataset.folder) in ("data/raw", "data/pretrained")
