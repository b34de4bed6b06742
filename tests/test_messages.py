"""Text for people: nothing from outside commands a terminal, and every failure is one line."""

from __future__ import annotations

import concurrent.futures.process
import errno
import os
import pty
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy.exc
import torch
import yaml
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError

from titles.data import console, messages
from titles.data.messages import has_commands, printable, told

COMMANDS = [
    pytest.param("\x1b]0;title\x07", id="title of the window"),
    pytest.param("\x1b[2J\x1b[H", id="clears the screen"),
    pytest.param("\x1b[8m", id="hides text"),
    pytest.param("\x9b2J", id="C1"),
    pytest.param("a\x08b", id="backspace"),
    pytest.param("\x7f", id="delete"),
    pytest.param("a\u202eb", id="right to left"),
    pytest.param("a\u2066b\u2069", id="isolate"),
    pytest.param("a\u2028b\u2029c", id="separators of lines"),
    pytest.param("a\x85b", id="next line"),
    pytest.param("a\udcffb", id="not UTF-8"),
]
FORBIDDEN = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066", "\u2069"}
FORBIDDEN |= {"\u2028", "\u2029", "\udcff"}


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_become_escapes(text):
    assert not FORBIDDEN & set(printable(text))
    assert printable(text).encode().decode("unicode_escape") == text


@pytest.mark.parametrize(
    "text", ["Niños ünï", "a\u00a0b", "手机壳", "👩\u200d💻", "\u3000", "\u0645\u06cc\u200c\u062e"]
)
def test_other_text_stays(text):
    assert printable(text) == text
    assert not has_commands(text)


# -- errors


class OurError(Exception):
    """Of no package that is known."""


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011  of many kinds
        function()
    return caught.value


EXPECTED = {
    "missing file": (FileNotFoundError(2, "No such file or directory", "a.csv"), "a.csv: No such file"),
    "full disk": (OSError(28, "No space left on device", "a"), "a: No space left on device: free some"),
    "full disk, weights": (
        SafetensorError("I/O error: No space left on device (os error 28)"),
        "No space left on device (os error 28): free some",
    ),
    "memory": (MemoryError(), "not enough memory"),
    "memory, numpy": (raised(lambda: np.empty(2**55)), "not enough memory: Unable to allocate"),
    "memory, torch": (
        raised(lambda: torch.empty(2**60, dtype=torch.uint8)),
        "not enough memory: ",
    ),
    "memory, GPU": (torch.OutOfMemoryError("CUDA out of memory."), "not enough memory: CUDA out"),
    "memory, system": (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory: "),
    "nesting": (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    "yaml": (raised(lambda: yaml.safe_load("a: [")), "YAML: while parsing"),
    "parquet": (pa.ArrowNotImplementedError("no cast"), "Parquet: no cast"),
    "mlflow": (MlflowException("RESOURCE\nof"), "MLflow: RESOURCE; of"),
    "sqlalchemy": (
        sqlalchemy.exc.OperationalError("SELECT", {}, Exception("locked")),
        "a database: ",
    ),
    "sqlite": (sqlite3.DatabaseError("file is not a database"), "a database: file is not"),
    "zlib": (raised(lambda: zlib.decompress(b"x")), "packed data are damaged: "),
    "struct": (raised(lambda: struct.unpack("i", b"")), "a file is damaged: "),
    "end": (EOFError("Ran out of input"), "a file ends too early: "),
    "killed": (concurrent.futures.process.BrokenProcessPool("x"), "a worker process was ended"),
    "utf-8": (raised(lambda: b"\xff".decode()), "text is not in the encoding"),
    "program": (subprocess.CalledProcessError(3, ["git"]), "returned non-zero exit status 3"),
    "import": (ImportError("No module named 'x'"), "`titles doctor` checks"),
    "ours": (ValueError("two\nlines:\n  and more"), "two; lines: and more"),
}


@pytest.mark.parametrize(("error", "expected"), EXPECTED.values(), ids=EXPECTED)
def test_what_comes_from_outside_is_told_plainly(error, expected):
    line = told(error)
    assert expected in line
    assert "\n" not in line
    assert messages.DEBUG not in line
    assert type(error).__name__ not in line


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AssertionError(), OurError("x")])
def test_a_bug_is_named_with_the_way_to_its_trace(error):
    line = told(error)
    assert line.startswith(type(error).__name__)
    assert f"{messages.DEBUG}=1" in line


@pytest.mark.parametrize("kind", [ValueError, KeyError, MemoryError, OSError])
def test_no_error_fills_more_than_a_screen_or_commands_it(kind):
    line = told(kind("start \x1b[2J" + "x" * 10**6 + "\n\u202e the cause"))
    assert len(line) < 24 * 80
    assert not FORBIDDEN & set(line)
    assert "start" in line
    assert "the cause" in line


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_a_name_with_a_separator_of_lines_is_told_as_it_is(mark):
    escaped = mark.encode("unicode_escape").decode()
    assert told(ValueError(f"a{mark}b.csv is damaged")) == f"a{escaped}b.csv is damaged"


@pytest.mark.parametrize("columns", ["0", "1", "-1", "x"])
def test_a_width_that_is_none_hides_nothing(monkeypatch, columns, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    console.console().print("name", no_wrap=True)
    assert capsys.readouterr().out == "name\n"


def test_nothing_is_no_empty_line():
    assert told(ValueError()) == "ValueError"


# -- streams

PRINT = (
    "import sys, os\nfrom titles.data import console\nfrom tqdm import tqdm\n"
    "with console.streams({vital}):\n    {body}\n"
)


def python(body, *arguments, vital=True, shell="", **settings):
    script = PRINT.format(vital=vital, body=body)
    command = ["bash", "-c", f'exec "$@" {shell}', "bash", sys.executable, "-c", script, *arguments]
    environment = os.environ | settings.pop("environment", {})
    return subprocess.run(command, capture_output=True, check=False, env=environment, **settings)


@pytest.mark.parametrize("text", COMMANDS)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_all_that_is_printed_is_filtered(text, stream):
    done = python(f"print('a:', {text!r}, 'b\\tc', file=sys.{stream})")
    assert done.returncode == 0
    assert getattr(done, stream).decode() == f"a: {printable(text)} b\tc\n"


def test_progress_bars_still_work_and_their_text_is_filtered():
    done = python(
        "for _ in tqdm(range(3), desc='a\\x1b[2Jb', file=sys.stderr): "
        "tqdm.write('c\\x1b[2Jd\\re', file=sys.stderr)"
    )
    told_of = done.stderr.decode()
    assert "\x1b[2J" not in told_of
    assert "\ra\\x1b[2Jb:   0%|" in told_of
    assert told_of.count("c\\x1b[2Jd\\re\n") == 3


def test_a_library_s_warning_is_filtered():
    done = python("import warnings; warnings.warn('a\\x1b]0;b\\x07c')")
    assert b"a\\x1b]0;b\\x07c" in done.stderr
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "latin-1"}])
def test_no_locale_refuses_a_character(locale):
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = python("print('\\u624b \\u2713')", environment=plain | locale)
    assert done.returncode == 0
    assert done.stdout == b"\\u624b \\u2713\n"


@pytest.mark.parametrize("vital", [True, False])
def test_closed_output_is_an_error_only_where_it_matters(vital):
    body = "print('x', flush=True)\n    print('went on', file=sys.stderr)"
    done = python(body, vital=vital, shell=">&-")
    assert ("went on" in done.stderr.decode()) != vital
    assert (done.returncode == 0) != vital


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_messages_that_nobody_can_read_are_no_error_and_go_nowhere_else(shell):
    done = python("print('x'); print('told', file=sys.stderr)", shell=shell)
    assert (done.returncode, done.stdout) == (0, b"x\n")


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path):
    body = "file = open(sys.argv[1], 'w'); print('x', file=sys.stderr); assert file.fileno() > 2"
    done = python(body, str(tmp_path / "a"), shell="2>&- >&- <&-")
    assert done.returncode == 0
    assert (tmp_path / "a").read_text() == ""


# -- commands and stages


def titles(*arguments, shell="", environment=None, **settings):
    command = [
        "bash",
        "-c",
        f'exec "$@" {shell}',
        "bash",
        sys.executable,
        "-m",
        "titles.cli",
        *arguments,
    ]
    env = os.environ | (environment or {})
    return subprocess.run(command, capture_output=True, check=False, env=env, **settings)


@pytest.mark.parametrize(
    "arguments",
    [
        ["\x1b[2J"],
        ["predict", "--file", "a\x1b[2J\u202e.csv"],
        ["predict", "x", "--model", "\x1b[2J"],
        ["predict", "x", "--models", "\x1b]0;a\x07"],
        ["predict", "x", "--no-such-\x1b[2J"],
        ["explain", "x", "--models", "\x9b2J"],
    ],
)
def test_no_argument_commands_the_terminal(arguments, tmp_path):
    done = titles(*arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr
    assert not FORBIDDEN - {"\n"} & set((done.stdout + done.stderr).decode())


FAILING = """
import sys
from titles import cli
from titles.commands import data
def add(commands):
    made = commands.add_parser("fail")
    made.set_defaults(run=run)
def run(options):
    {body}
data.add = add
sys.exit(cli.main(["fail"]))
"""


def failing(body, **environment):
    environment = {k: v for k, v in os.environ.items() if k != messages.DEBUG} | environment
    command = [sys.executable, "-c", FAILING.format(body=body)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "body", ["raise MemoryError", "{}['x']", "raise RecursionError", "raise ValueError(1)"]
)
def test_a_command_fails_with_one_line_and_shows_the_trace_on_request(body):
    done = failing(body)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    traced = failing(body, **{messages.DEBUG: "1"})
    assert traced.returncode == 1
    assert "Traceback" in traced.stderr
    assert traced.stderr.endswith(done.stderr)


def test_a_broken_pipe_of_something_else_than_the_output_is_an_error():
    assert failing("raise BrokenPipeError(32, 'Broken pipe')").returncode == 1


def test_a_stage_tells_also_what_fails_while_it_is_imported(tmp_path):
    (tmp_path / "torch.py").write_text("raise MemoryError('no room')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', 'src')}"}
    environment.pop(messages.DEBUG, None)
    command = [sys.executable, "-m", "titles.stages.train_mlp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "error: not enough memory: no room\n")


def test_a_warning_before_the_streams_are_filtered_commands_nothing(tmp_path):
    place = str(Path(os.environ.get("PYTHONPATH", "src")).resolve())
    environment = os.environ | {"PYTHONPATH": place, "DVC_STAGE": "\x1b]0;owned\x07"}
    command = [sys.executable, "-m", "titles.stages.prepare"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1  # there is no params.yaml
    assert r"no stage \x1b]0;owned\x07 here" in done.stderr
    assert "\x1b" not in done.stderr


def test_data_on_a_terminal_are_filtered_and_in_a_pipe_are_not():
    body = "console.output().write('a,\\x1b[2J\\r\\n'.encode()); sys.stdout.flush()"
    assert python(body).stdout == b"a,\x1b[2J\r\n"
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-c", PRINT.format(vital=True, body=body)]
        subprocess.run(command, stdout=theirs, check=True)
        shown = os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert shown == b"a,\\x1b[2J\\r\r\n"


@pytest.mark.parametrize("given", ["Tênis", "手机"])
def test_an_argument_is_read_as_utf8_in_any_locale(given):
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    script = "import sys; from titles.commands import text; print(ascii(text(sys.argv[1])))"
    command = [sys.executable, "-c", script, given]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=True
    )
    assert done.stdout == f"{given!a}\n"


def test_an_argument_that_is_not_utf8_stays():
    from titles.commands import text

    assert text("a\udcff") == "a\udcff"
    assert text(Path("ñ").name) == "ñ"
