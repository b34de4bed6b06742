"""No secret is kept, no server is open to others.

What runs or unpickles what comes from elsewhere: the rules S and TID251 of ruff. Archives:
test_download.py. Titles and categories in pages: test_report.py, test_explain.py. Addresses in runs:
test_tracking.py.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOWS = [p.relative_to(ROOT).as_posix() for p in (ROOT / ".github/workflows").glob("*.yml")]


def open_servers(text: str) -> list[str]:
    """Command lines that start a server for others than this machine."""
    lines = text.replace("\\\n", " ").splitlines()
    started = r"\b(mlflow (ui|server)|http\.server|uvicorn|gunicorn|titles serve|dask scheduler)\b"
    told = r"(--host|--bind|-b)[ =]127\.0\.0\.1\b"
    loopback = r"\btitles serve\b(?!.*--host)"  # its own default
    return [
        line.strip()
        for line in lines
        if re.search(started, line) and not re.search(told, line) and not re.search(loopback, line)
    ]


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", *WORKFLOWS])
def test_a_command_of_the_project_serves_this_machine_alone(name: str) -> None:
    assert open_servers((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "mlflow ui",
        "\tmlflow server \\\n  --host 0.0.0.0",
        "python -m http.server",
        "uvicorn a:b --port 1",
    ],
)
def test_an_open_server_is_noticed(line: str) -> None:
    assert open_servers(line)
    assert not open_servers(f"{line.replace('--host 0.0.0.0', '')} --host 127.0.0.1")


def secrets(config: str) -> list[str]:
    """Settings of DVC that are a secret, or hold one in an address."""
    parser = configparser.ConfigParser()
    parser.read_string(config)
    return [
        f"{section}.{key}"
        for section in parser.sections()
        for key, value in parser[section].items()
        if re.search("password|token|secret|key|credential|user|passphrase", key) or "@" in value
    ]


def test_the_repository_keeps_no_credentials() -> None:
    assert secrets((ROOT / ".dvc/config").read_text(encoding="utf-8")) == []
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "Makefile", *WORKFLOWS):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.findall(r"\w+://[^\s/@]+@", text) == [], name
    assert "/config.local" in (ROOT / ".dvc/.gitignore").read_text(encoding="utf-8").split()


@pytest.mark.parametrize(
    "line",
    ["password = a", "access_key_id = a", "user = ana", "url = ssh://ana@host/x", "url = https://a:b@h"],
)
def test_a_credential_is_noticed(line: str) -> None:
    assert secrets(f"['remote \"mine\"']\n    url = ../remote\n['remote \"other\"']\n    {line}\n")
