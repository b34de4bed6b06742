"""Networks that answer over HTTP: by the server of MLflow itself, and as `titles serve`."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import small_project
from mlflow_server import closed_port
from networks import LABEL_NAMES
from saved_models import write_models
from titles.cli import main
from titles.data import processor
from titles.predict.classifier import Classifier

HOST = "127.0.0.1"
JSON = "application/json"
CSV = "text/csv"
WORDS = [f"word{number}" for number in range(2, 12)] + ["unheard", "ñandú", "xk-9"]
MIB = 2**20


def text(number: int) -> str:
    """A title of one to seven words; different numbers up to 10,000 rarely give the same."""
    return " ".join(
        WORDS[(number * 7 + place * place * 5 + number // 13) % 13] for place in range(1 + number % 7)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("trained") / "models")


@pytest.fixture(scope="module")
def classifier(models: Path) -> Classifier:
    return Classifier.read(models, "average", torch.device("cpu"))


@pytest.fixture(scope="module")
def exported(models: Path) -> Path:
    out = models.parent / "exported"
    assert main(["export", "mlflow", "--models", str(models), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The port of `mlflow models serve`, and the process that answers."""
    with closed_port() as port:
        pass
    command = ["mlflow", "models", "serve", "--model-uri", str(exported), "--env-manager", "local"]
    with running([*command, "--host", HOST, "--port", str(port)], port, exported.parent) as process:
        (answering,) = psutil.Process(process.pid).children()
        yield port, answering


@contextmanager
def running(command: Sequence[str], port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server's command once it answers; ended with all its processes."""
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        last = time.monotonic() + 300
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < last, log.read_text()
            time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
        yield process
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True) or family
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _, left = psutil.wait_procs(family, 20)
        for member in left:
            member.kill()


def environment() -> dict[str, str]:
    return small_project.environment() | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False


def post(
    port: int, body: Any, kind: str = JSON, connection: http.client.HTTPConnection | None = None
) -> tuple[int, Any]:
    """Status and what was answered."""
    connection = connection or http.client.HTTPConnection(HOST, port, timeout=600)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", "/invocations", content, {"Content-Type": kind})
    response = connection.getresponse()
    answer = response.read()
    return response.status, json.loads(answer) if response.status == 200 else answer.decode()


def expected(classifier: Classifier, titles: Sequence[str], k: int = 5) -> list[dict[str, Any]]:
    """What a server has to answer to titles that can be classified."""
    found = classifier.top(titles, k)
    return [
        {"category": [LABEL_NAMES[code] for code in codes], "probability": shares, "problem": ""}
        for codes, shares in zip(*(values.tolist() for values in found), strict=True)
    ]


def assert_same(answers: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Probabilities are the same to the last digit where products do not depend on the batch."""
    assert len(answers) == len(wanted)
    for answer, right in zip(answers, wanted, strict=True):
        assert answer["category"] == right["category"]
        assert answer["problem"] == right["problem"]
        if processor.portable():
            assert answer["probability"] == right["probability"]
        else:
            assert answer["probability"] == pytest.approx(right["probability"], abs=1e-5)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "form",
    [
        lambda titles: {"inputs": titles},
        lambda titles: {"instances": titles},
        lambda titles: {"dataframe_split": {"columns": ["title"], "data": [[t] for t in titles]}},
        lambda titles: {"dataframe_records": [{"title": t} for t in titles]},
    ],
    ids=["inputs", "instances", "split", "records"],
)
def test_answers_over_http_are_those_of_pyfunc_and_of_the_classifier(
    server: tuple[int, Any], exported: Path, classifier: Classifier, form: Any
) -> None:
    titles = [text(number) for number in range(50)]
    status, answer = post(server[0], form(titles) | {"params": {"k": 3}})
    assert status == 200
    assert_same(answer["predictions"], expected(classifier, titles, 3))
    import mlflow  # takes seconds to load

    table = mlflow.pyfunc.load_model(str(exported)).predict(titles, params={"k": 3})
    assert_same(answer["predictions"], table.to_dict("records"))


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("body", "kind", "status", "told"),
    [
        (b"{'no json", JSON, 400, "JSON"),
        (b"", JSON, 400, "JSON"),
        (b"[]", JSON, 400, "JSON dictionary"),
        (b'{"titles": ["word2"]}', JSON, 400, "inputs"),
        (b'{"inputs": ["word2"]}', "text/html", 415, "content types"),
        (b'{"inputs": ["word2"], "params": {"k": 0}}', JSON, 400, "k is 0"),
        (b'{"inputs": ["word2"], "params": {"k": "many"}}', JSON, 400, "many"),
        (b'{"dataframe_records": [{"name": "word2"}]}', JSON, 400, "must be in a column 'title'"),
        (b'{"inputs": ["word2"], "instances": []}', JSON, 400, "exactly one of"),
        (b'{"inputs": null}', JSON, 400, "inputs is null"),
        (b'{"inputs": ["word2"], "params": {"k": 1e999}}', JSON, 400, "k"),
        (b'{"inputs": ["word2"], "params": {"at_least": NaN}}', JSON, 400, "at_least is nan"),
        (b'{"inputs": ["word2"], "params": [3]}', JSON, 400, "params is no dictionary"),
        (b'{"dataframe_split": {"columns": 5, "data": [["x"]]}}', JSON, 400, "no list of names"),
        (b'{"dataframe_split": {"columns": [["title"]], "data": [["x"]]}}', JSON, 400, "list of names"),
        (b'{"dataframe_split": {"columns": {"title": 1}, "data": [["x"]]}}', JSON, 400, "list of names"),
        (
            b'{"dataframe_split": {"columns": ["title", "title"], "data": [["x", "y"]]}}',
            JSON,
            400,
            "twice",
        ),
        (b"title,title\nx,y\n", "text/csv", 400, "twice"),
        (b'{"dataframe_split": ["word2"]}', JSON, 400, "columns and data"),
        (b'{"dataframe_records": ["word2"]}', JSON, 400, "no list of dictionaries"),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, 400, "nested too deeply"),
        (b'{"inputs": [' + b"9" * 5000 + b"]}", JSON, 400, "thousands of digits"),
        (b"", CSV, 400, "the CSV is empty"),
        (b"name\nword2\n", CSV, 400, "must be in a column 'title'"),
        (b'"title\nword2\n', CSV, 400, "the first line is no CSV"),
        (b"PAR1", "application/vnd.apache.parquet", 400, "Parquet"),
        (b'{"inputs": ["word2"]}', "", 415, "the content type is missing"),
        (b"title\nword2\n", "text/csv; charset=latin-1", 415, "latin-1"),
        (b"title\nword2\n", "text/csv; charset=none-such", 415, "none-such"),
    ],
    ids=str,
)
def test_a_request_that_is_no_such_request_is_told_why_and_the_next_one_is_answered(
    server: tuple[int, Any], body: bytes, kind: str, status: int, told: str
) -> None:
    connection = http.client.HTTPConnection(HOST, server[0], timeout=600)
    connection.connect()
    line = connection.sock
    found, answer = post(server[0], body, kind, connection)
    assert found == status, answer
    assert told in answer
    message = json.loads(answer)["message"]
    assert "\n" not in message
    assert "Traceback" not in answer
    assert ".py" not in answer
    assert post(server[0], {"inputs": ["word2"]}, connection=connection)[0] == 200
    assert connection.sock is line, "the connection was closed"


@pytest.mark.pipeline
def test_a_request_without_a_length_is_refused_and_the_next_one_on_its_connection_is_answered(
    server: tuple[int, Any],
) -> None:
    content = json.dumps({"inputs": ["word2"]}).encode()
    start = f"POST /invocations HTTP/1.1\r\nHost: {HOST}\r\n"
    requests = [f"{start}\r\n", f"{start}Content-Type: {JSON}\r\n\r\n"]
    requests += [f"{start}Content-Type: {JSON}\r\nContent-Length: {len(content)}\r\n\r\n"]
    found = []
    with socket.create_connection((HOST, server[0]), 60) as line:
        for request in requests:
            line.sendall(request.encode() + (content if "Length" in request else b""))
            response = http.client.HTTPResponse(line)
            response.begin()
            response.read()
            found.append(response.status)
    assert found == [415, 400, 200]


@pytest.mark.pipeline
def test_a_list_is_answered_whatever_is_in_it_in_each_form(server: tuple[int, Any]) -> None:
    odd = {"\ud800": "not UTF-8", "": "empty title", None: "no title", 5: "title is no text"}
    lists: list[tuple[list[Any], list[str]]] = [([key], [told]) for key, told in odd.items()]
    lists += [(["word2", *row, "word2"], ["", *told, ""]) for row, told in lists]
    lists += [(["word2", row], ["", "title is no text"]) for row in (["a", ["b"]], [], {}, True, 1e300)]
    lists += [(["word2", float("nan")], ["", "no title"]), ([], [])]
    forms = [
        lambda titles: {"inputs": titles},
        lambda titles: {"instances": titles},
        lambda titles: {"dataframe_split": {"columns": ["title"], "data": [[t] for t in titles]}},
        lambda titles: {"dataframe_records": [{"title": t} for t in titles]},
    ]
    for titles, told in lists:
        for form in forms:
            status, answer = post(server[0], form(titles))
            assert (status, [row["problem"] for row in answer["predictions"]]) == (200, told)


@pytest.mark.pipeline
def test_csv_is_answered_as_json_and_a_row_that_is_damaged_leaves_the_others_alone(
    server: tuple[int, Any], classifier: Classifier
) -> None:
    titles = [text(number) for number in range(20)] + ["123", "NA", 'word3 "x", word4', "word3\nword4"]
    rows = ["title", *('"' + title.replace('"', '""') + '"' for title in titles)]
    wanted = expected(classifier, titles)
    for end in ("\n", "\r\n"):
        status, answer = post(server[0], end.join([*rows, ""]).encode(), "text/csv; charset=utf-8")
        assert status == 200, answer
        assert_same(answer["predictions"], wanted)
    damaged = b'\xef\xbb\xbftitle,price\nword2,1\ntel\xe9fono,2\nword2, 1,5\n"",3\nword2,1\n'
    status, answer = post(server[0], damaged, CSV)
    assert status == 200, answer
    problems = ["", "not UTF-8", "wrong number of fields", "empty title", ""]
    assert [row["problem"] for row in answer["predictions"]] == problems
    assert post(server[0], b"title\n", CSV) == (200, {"predictions": []})


@pytest.mark.pipeline
@pytest.mark.parametrize("kind", ["charset=utf8", 'header=present; charset="UTF-8"', "charset=us-ascii"])
@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (b'title\nword2\n"word3\nword4\n', ["", "broken CSV", ""]),
        (b'title\nword2\n"word3" word5\n"word4"\n', ["", "broken CSV", ""]),
        (b'title\n"a"b\n"c"d\nword2', ["broken CSV", "broken CSV", ""]),
        (b"title\nword2\n" + b"x" * 200_000 + b"\nword3\n", ["", "broken CSV", ""]),
        (b'title,price\nword2,1\nTV 42", word3,4,5\nword4,2\n', ["", "wrong number of fields", ""]),
        (b"\n\r\n title \nword2\n\nword3\n", ["", "empty title", ""]),
    ],
    ids=["unclosed", "after a quote", "twice", "too long", "fields", "blank lines"],
)
def test_a_broken_row_of_csv_costs_its_line_only(
    server: tuple[int, Any], body: bytes, problems: list[str], kind: str
) -> None:
    status, answer = post(server[0], body, f"text/csv; {kind}")
    assert status == 200, answer
    assert [row["problem"] for row in answer["predictions"]] == problems


@pytest.mark.pipeline
def test_ten_thousand_titles_in_one_request_get_as_many_answers(
    server: tuple[int, Any], classifier: Classifier
) -> None:
    titles = [text(number) for number in range(10_000)]
    status, answer = post(server[0], {"inputs": titles})
    assert status == 200
    assert_same(answer["predictions"], expected(classifier, titles))


@pytest.mark.pipeline
def test_whatever_a_title_is_it_gets_an_answer_and_leaves_the_others_alone(
    server: tuple[int, psutil.Process], classifier: Classifier
) -> None:
    port, process = server
    good = [
        "word3\0word4 \0",
        "word3 😀 word5",
        "手机壳 三星 word6",
        "чехол для телефона",
        "word7 " * 200_000,  # over a megabyte
        "x" * MIB,
        "word2\nword3",
    ]
    bad = {
        "": "empty title",
        " \n ": "empty title",
        "😀": "no word",
        "\0": "no word",
        "\ud800": "not UTF-8",
        None: "no title",
        17: "title is no text",
    }
    # Many short ones beside: as an array as wide as the longest they would be 40 GB.
    titles = [*good, *bad, *(text(number) for number in range(10_000))]
    status, answer = post(port, {"inputs": titles})
    assert status == 200, answer[:500]
    predictions = answer["predictions"]
    problems = [row for row in predictions if row["problem"]]
    assert problems == [{"category": [], "probability": [], "problem": told} for told in bad.values()]
    rest = [title for title in titles if title not in bad]
    assert_same([row for row in predictions if not row["problem"]], expected(classifier, rest))
    assert process.memory_info().rss < 2000 * MIB


@pytest.mark.endures
@pytest.mark.pipeline
def test_sixteen_clients_get_every_answer_right_and_memory_stays_flat(
    server: tuple[int, psutil.Process], classifier: Classifier
) -> None:
    port, process = server
    requests = [[text(number + place) for place in range(1 + number % 4)] for number in range(2400)]
    flat = [title for titles in requests for title in titles]
    right = iter(expected(classifier, flat))
    wanted = [[next(right) for _ in titles] for titles in requests]

    def client(numbers: range) -> list[tuple[int, int, Any]]:
        connection = http.client.HTTPConnection(HOST, port, timeout=600)
        return [(n, *post(port, {"inputs": requests[n]}, connection=connection)) for n in numbers]

    def ask(first: int, last: int) -> None:
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(client, (range(first + n, last, 16) for n in range(16))))
        answered = {number: (status, answer) for part in parts for number, status, answer in part}
        assert answered.keys() == set(range(first, last))
        for number, (status, answer) in answered.items():
            assert status == 200, answer
            assert_same(answer["predictions"], wanted[number])

    ask(0, 400)
    warm = process.memory_info().rss
    ask(400, 2400)
    grown = (process.memory_info().rss - warm) / MIB
    print(f"grown by {grown:.1f} MiB from {warm / MIB:.0f} MiB")
    assert grown < 32  # 16 KiB a request would be a leak of as much


@pytest.mark.endures
@pytest.mark.pipeline
def test_mlflow_ends_with_an_error_where_the_port_is_in_use(
    server: tuple[int, Any], exported: Path
) -> None:
    command = ["mlflow", "models", "serve", "--model-uri", str(exported), "--env-manager", "local"]
    told = small_project.run(
        exported.parent, *command, "--host", HOST, "--port", str(server[0]), fails=True
    )
    assert "address already in use" in told
    assert answers(server[0])


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.endures),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.endures),
        pytest.param(signal.SIGQUIT, -signal.SIGQUIT, marks=pytest.mark.endures),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_titles_serve_answers_until_it_is_ended_and_leaves_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    with closed_port() as port:
        pass
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-m", "titles.cli", "serve", "--models", str(models), "--model", "mlp"]
    with running([*command, "--port", str(port)], port, tmp_path) as process:
        server = psutil.Process(process.pid)
        family = [server, *server.children(recursive=True)]
        listening = [c.laddr for p in family for c in p.net_connections() if c.status == "LISTEN"]
        assert listening == [(HOST, port)]
        status, answer = post(port, {"inputs": ["word3 word4"]})
        mlp = Classifier.read(models, "mlp", torch.device("cpu"))
        assert status == 200
        assert_same(answer["predictions"], expected(mlp, ["word3 word4"]))
        waiting = http.client.HTTPConnection(HOST, port, timeout=60)  # must not keep it
        assert post(port, {"inputs": ["word2"]}, connection=waiting)[0] == 200
        os.kill(process.pid, number)
        assert process.wait(60) == code
    assert not psutil.wait_procs(family[1:], 5)[1]
    assert not answers(port)
    # Nothing of ours; a compiler's own folder may stay.
    assert not [path for path in temporary.iterdir() if "titles" in path.name]


def test_a_port_in_use_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--models", str(tmp_path / "none"), "--port", str(port)]) == 1
    assert f"cannot serve at port {port} of {HOST}: Address already in use" in capsys.readouterr().err


def test_an_address_that_is_not_this_machines_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "192.0.2.1"]) == 1
    assert "cannot serve at port 5001 of 192.0.2.1: Cannot assign" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "٣"])
def test_what_is_no_port_is_a_wrong_usage(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", f"--port={port}"])
    assert caught.value.code == 2
    assert "expected 1 to 65535" in capsys.readouterr().err


@pytest.mark.pipeline
def test_models_that_cannot_be_served_are_told(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closed_port() as port:
        pass
    assert main(["serve", "--models", str(tmp_path), "--port", str(port)]) == 1
    assert "model.json is missing: run `dvc repro`, or `dvc pull`" in capsys.readouterr().err
