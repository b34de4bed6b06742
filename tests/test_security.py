"""Nothing that comes from elsewhere is run, no secret is kept, no server is open to others.

Archives: test_download.py. Titles and categories in pages: test_report.py, test_explain.py. Addresses in
runs: test_tracking.py.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("src", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
WORKFLOWS = [p.relative_to(ROOT).as_posix() for p in (ROOT / ".github/workflows").glob("*.yml")]

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "jsonpickle"}
# Calls that run or unpickle what they are given, whatever the arguments.
CALLS = {
    *("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "joblib.load", "torch.load", "torch.jit.load", "torch.hub.load"),
    *("numpy.fromregex", "pandas.read_pickle", "pandas.eval", "pandas.read_hdf", "yaml.unsafe_load"),
    *("yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all", "tempfile.mktemp"),
    *("ssl._create_unverified_context", "mlflow.pyfunc.load_model", "mlflow.pytorch.load_model"),
}
# gensim's own format is a pickle; word2vec's format is not.
GENSIM = {"KeyedVectors", "Word2Vec", "FastText", "FastTextKeyedVectors", "Doc2Vec", "SaveLoad"}
# File and call: why it is no danger.
ALLOWED = {
    ("benchmarks/peers.py", "imports pickle"): "to know the size of a peer's model",
    ("benchmarks/peers.py", "calls pickle.dump"): "the same; it reads none",
    (
        "src/titles/serving.py",
        "server at str(address[0])",
    ): "closed at once, and --host is 127.0.0.1 by default",
}


def dangers(source: str) -> Iterator[str]:
    """What in a module can run or unpickle what a file holds, or can serve others."""
    tree = ast.parse(source)
    names = _names(tree)
    safe_loaders = {"yaml.SafeLoader", "yaml.CSafeLoader"} | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(_dotted(base, names) in ("yaml.SafeLoader", "yaml.CSafeLoader") for base in node.bases)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"imports {node.module}"
        elif isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::"):
            yield f"address {node.value!r}"
        elif isinstance(node, ast.Call):
            yield from _call(node, names, safe_loaders)


def _call(node: ast.Call, names: dict[str, str], safe_loaders: set[str]) -> Iterator[str]:
    called = _dotted(node.func, names)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    method = called.rpartition(".")[2]
    if called in CALLS or any(called.startswith(f"{module}.") for module in MODULES):
        yield f"calls {called}"
    if called in ("importlib.import_module", "__import__"):
        if not (node.args and isinstance(node.args[0], ast.Constant)):
            yield f"calls {called} with a name that is not written there"
        elif str(node.args[0].value).split(".")[0] in MODULES:
            yield f"imports {node.args[0].value}"
    if "shell" in given and not _is(given["shell"], False):
        yield f"calls {called} with a shell"
    if called == "numpy.load" and not _is(given.get("allow_pickle"), False, None):  # False by default
        yield "calls numpy.load with pickles"
    if called in ("yaml.load", "yaml.load_all"):
        loader = given.get("Loader") or next(iter(node.args[1:2]), None)
        if loader is None or _dotted(loader, names) not in safe_loaders:
            yield f"calls {called} without a safe loader"
    if method in ("extractall", "extract", "unpack_archive") and not {"filter", None} & set(given):
        yield f"calls {method} without a filter"
    if "filter" in given and method in ("extractall", "extract") and not _is(given["filter"], "data"):
        yield f"calls {method} with another filter"
    if method == "load" and isinstance(node.func, ast.Attribute):
        owner = _dotted(node.func.value, names).rpartition(".")[2]
        if owner in GENSIM:
            yield f"calls {owner}.load"
    if "verify" in given and _is(given["verify"], False):
        yield f"calls {called} without verification"
    if method == "bind" and node.args and isinstance(node.args[0], ast.Tuple):
        host = node.args[0].elts[0]
        if isinstance(host, ast.Constant) and host.value != "127.0.0.1":
            yield f"address {host.value!r}"
    if method.endswith(("Server", "create_server", "start_server")) and node.args:
        place = node.args[0]
        if isinstance(place, ast.Tuple) and not _is(place.elts[0], "127.0.0.1"):
            yield f"server at {ast.unparse(place.elts[0])}"
    if method == "add_argument" and any(_is(name, "--host") for name in node.args):
        default = given.get("default")
        if default is None or (isinstance(default, ast.Constant) and default.value != "127.0.0.1"):
            yield "a --host that is not 127.0.0.1"


def _names(tree: ast.Module) -> dict[str, str]:
    """What each name that a module imports stands for, in full."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    first, dot, rest = ast.unparse(node).partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def _is(node: ast.expr | None, *values: object) -> bool:
    """Whether it is one of these constants; None stands for an argument that is not there."""
    if node is None:
        return None in values
    return isinstance(node, ast.Constant) and node.value in [v for v in values if v is not None]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_runs_or_unpickles_what_it_reads(path: Path) -> None:
    found = dangers(path.read_text(encoding="utf-8"))
    assert [
        danger for danger in found if (path.relative_to(ROOT).as_posix(), danger) not in ALLOWED
    ] == []


@pytest.mark.parametrize(("file", "danger"), ALLOWED)
def test_what_is_allowed_is_still_there(file: str, danger: str) -> None:
    assert danger in set(dangers((ROOT / file).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        *((f"import {module}", f"imports {module}") for module in sorted(MODULES)),
        ("def f():\n    from pickle import loads as read\n    read(b'')", "calls pickle.loads"),
        ("import importlib\nimportlib.import_module('dill')", "imports dill"),
        ("import importlib\nimportlib.import_module(name)", "with a name that is not written"),
        ("import torch as t\nt.load(file)", "calls torch.load"),
        ("from torch import load\nload(file, weights_only=True)", "calls torch.load"),
        ("import joblib\njoblib.load(file)", "calls joblib.load"),
        ("import numpy as np\nnp.load(file, allow_pickle=True)", "numpy.load with pickles"),
        ("from numpy import load\nload(file, allow_pickle=flag)", "numpy.load with pickles"),
        ("import yaml\nyaml.load(text)", "without a safe loader"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "without a safe loader"),
        ("import yaml\nclass L(yaml.FullLoader): ...\nyaml.load(text, L)", "without a safe loader"),
        ("import yaml\nyaml.unsafe_load(text)", "calls yaml.unsafe_load"),
        ("eval(text)", "calls eval"),
        ("exec(text)", "calls exec"),
        ("import os\nos.system(text)", "calls os.system"),
        ("from subprocess import run\nrun(text, shell=True)", "with a shell"),
        ("import subprocess\nsubprocess.Popen(text, shell=flag)", "with a shell"),
        ("import pandas as pd\npd.read_pickle(file)", "calls pandas.read_pickle"),
        ("from gensim.models import KeyedVectors\nKeyedVectors.load(file)", "calls KeyedVectors.load"),
        ("import gensim\ngensim.models.Word2Vec.load(file)", "calls Word2Vec.load"),
        ("tar.extractall(folder)", "extractall without a filter"),
        ("tar.extract(member, folder)", "extract without a filter"),
        ("tar.extractall(folder, filter='fully_trusted')", "extractall with another filter"),
        ("import shutil\nshutil.unpack_archive(file)", "unpack_archive without a filter"),
        ("import requests\nrequests.get(url, verify=False)", "without verification"),
        ("HOST = '0.0.0.0'", "address '0.0.0.0'"),
        ("socket.bind(('', 80))", "address ''"),
        ("ThreadingHTTPServer(('', 80), Handler)", "server at ''"),
        ("ThreadingHTTPServer((host(), 80), Handler)", "server at host()"),
        ("parser.add_argument('--host', default='0')", "a --host that is not 127.0.0.1"),
        ("parser.add_argument('--host')", "a --host that is not 127.0.0.1"),
    ],
)
def test_the_search_notices(source: str, danger: str) -> None:
    assert any(danger in found for found in dangers(source)), list(dangers(source))


def test_the_search_lets_safe_calls_pass() -> None:
    source = """
import numpy as np, yaml, subprocess, tarfile, socket
from joblib import cpu_count
class L(yaml.SafeLoader): ...
yaml.load(text, L), yaml.safe_load(text), np.load(file, allow_pickle=False), model.eval()
subprocess.run(["git"], shell=False), tar.extractall(folder, filter="data")
KeyedVectors.load_word2vec_format(file), json.load(file), socket.bind(("127.0.0.1", 0))
parser.add_argument("--host", default="127.0.0.1")
"""
    assert list(dangers(source)) == []


def open_servers(text: str) -> list[str]:
    """Command lines that start a server for others than this machine."""
    lines = text.replace("\\\n", " ").splitlines()
    started = r"\b(mlflow (ui|server)|http\.server|uvicorn|gunicorn|titles serve|dask scheduler)\b"
    told = r"(--host|--bind|-b)[ =]127\.0\.0\.1\b"
    loopback = r"\btitles serve\b(?!.*--host)"  # its own default, see the search above
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
