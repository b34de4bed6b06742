"""What stands in docs/serving.md does what is said there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from documents import read, sections
from mlflow_server import closed_port
from networks import LABEL_NAMES
from saved_models import write_models
from small_project import run
from test_serving import running

pytestmark = [pytest.mark.pipeline, pytest.mark.endures]

PAGE = sections(read("docs/serving.md"))
BLOCKS = {section.title: section.blocks for section in PAGE}
PORT = "5001"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project has trained both networks."""
    made = tmp_path_factory.mktemp("project")
    write_models(made / "models")
    return made


def bash(folder: Path, block: str) -> str:
    return run(folder, "bash", "-c", f"set -e\n{block}")


def test_pyfunc_answers_in_python(folder: Path) -> None:
    (_, export), (_, script) = BLOCKS["In Python, with MLflow"]
    bash(folder, export)
    told = run(folder, sys.executable, "-c", script)
    assert "category" in told
    assert "no word" in told
    assert any(label in told for label in LABEL_NAMES)


def test_both_servers_give_curl_the_same_answer(folder: Path) -> None:
    serve, curl, mlflow_serve = (block for language, block in BLOCKS["Over HTTP"])
    bash(folder, BLOCKS["In Python, with MLflow"][0][1])
    answers = []
    for command in (serve, mlflow_serve):
        with closed_port() as port:
            pass
        assert PORT in command
        words = ["bash", "-c", "exec " + command.replace(PORT, str(port))]
        with running(words, port, folder):
            told = bash(folder, curl.replace(PORT, str(port)).replace("curl", "curl --silent"))
        answers.append(json.loads(told)["predictions"])
    assert answers[0] == answers[1]
    good, bad = answers[0]
    assert len(good["category"]) == len(good["probability"]) == 3
    assert (good["problem"], bad) == ("", {"category": [], "probability": [], "problem": "no word"})


def test_onnx_answers_in_ten_lines_of_python(folder: Path) -> None:
    (_, commands), (_, script) = BLOCKS["ONNX"]
    install, export = commands.splitlines()
    assert install.startswith("pip install")
    bash(folder, export)
    assert len(script.splitlines()) <= 10
    told = run(folder, sys.executable, "-c", script).splitlines()
    titles = ["Funda Para Celular Samsung J7", "Celular Xqzt Con Funda"]
    assert [line.partition(" -> ")[0] for line in told] == titles
    assert all(line.partition(" -> ")[2] in LABEL_NAMES for line in told)
    options = ["--model", "cnn", "--top", "1", "--out-format", "jsonl"]
    predicted = run(folder, "titles", "predict", *titles, *options).splitlines()
    assert [line.partition(" -> ")[2] for line in told] == [
        json.loads(row)["category_1"] for row in predicted
    ]


def test_the_folder_for_the_hub_predicts_by_itself(folder: Path) -> None:
    ((_, commands),) = [block for block in BLOCKS["The Hugging Face Hub"] if block[0] == "bash"]
    export, predict = commands.splitlines()
    bash(folder, export)
    wanted = run(folder, "titles", "predict", "Funda Para Celular Samsung J7")
    assert bash(folder, predict) == wanted


def test_the_demo_is_where_the_page_says(folder: Path) -> None:
    ((_, command),) = BLOCKS["A page to try"]
    with closed_port() as port:
        pass
    words = ["bash", "-c", "exec " + command.replace("8501", str(port))]
    with running(words, port, folder):
        told = (folder / "server.log").read_text()
    assert f"the demo is at http://127.0.0.1:{port}; Ctrl-C ends it" in told
    assert "http://127.0.0.1:8501" in read("docs/serving.md")
