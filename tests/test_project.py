"""Rules of the project that no single module can keep."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from posixpath import normpath

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from documents import read, sections
from imports import directly_imported_files, imported_files, names
from titles.models.registry import NETWORKS, parse_params
from titles.params import Params

ROOT = Path(__file__).parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = list(PIPELINE["stages"])
SOURCES = sorted((ROOT / "src").rglob("*.py"))
DOCUMENTS = [
    p.relative_to(ROOT).as_posix() for f in (".", "docs") for p in sorted((ROOT / f).glob("*.md"))
]

# They change no output: values of parameters are tracked one by one, the registry only says where a
# network is (evaluate, whose outputs it changes, declares it), and MLflow only records.
NOT_TRACKED = {
    "src/titles/params.py",
    "src/titles/models/registry.py",
    *(
        f"src/titles/tracking/{path.name}"
        for path in (ROOT / "src/titles/tracking").glob("*.py")
        if path.name != "curves.py"  # writes plots/<network>
    ),
}
# From the top down: a room imports only rooms below it.
ROOMS = [
    "cli",
    "commands",
    "serve",
    "stages",
    "predict",
    "doctor",
    "training",
    "experiments",
    "evaluation",
    "embed",
    "models",
    "models/parts",
    "prepare",
    "tracking",
    "params",
    "datasets",
    "listings",
    "data",
    "texts",
]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> set[str]:
    nodes = list(ast.walk(_tree(path)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def _room(file: str) -> str:
    """The innermost room of a file of src/titles."""
    parts = Path(file).relative_to("src/titles").with_suffix("").parts
    return next(room for n in (2, 1) if (room := "/".join(parts[:n])) in ROOMS)


@pytest.mark.parametrize(
    "file", sorted(p.name for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text())
)
def test_a_benchmark_imports_titles_before_packages_that_read_its_settings(file: str) -> None:
    first = [
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in _tree(ROOT / "benchmarks" / file).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    rooms = [name.split(".")[0] for name in first]
    assert next(name for name in rooms if name not in sys.stdlib_module_names) == "titles"


def test_rooms_import_only_rooms_below_them() -> None:
    upward = []
    for path in SOURCES:
        file = path.relative_to(ROOT).as_posix()
        if path.parent.name == "titles" and path.name == "__init__.py":
            continue
        for target in directly_imported_files(path):
            if target.endswith("titles/__init__.py"):
                continue
            if ROOMS.index(_room(target)) < ROOMS.index(_room(file)):
                upward.append(f"{file} -> {target}")
    assert upward == []


def test_every_file_is_in_a_room_and_no_module_is_longer_than_400_lines() -> None:
    for path in SOURCES:
        if path.parent.name != "titles":
            assert _room(path.relative_to(ROOT).as_posix())
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def _covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_depends_on_covers_what_it_imports(stage: str) -> None:
    declared = {dep for dep in PIPELINE["stages"][stage]["deps"] if dep.startswith("src/")}
    imported = {f for f in imported_files(f"titles.stages.{stage}") if not f.endswith("__init__.py")}
    assert {f for f in imported - NOT_TRACKED if not any(_covers(d, f) for d in declared)} == set()
    # Nothing is declared of which nothing is imported.
    assert {d for d in declared if not any(_covers(d, f) for f in imported)} == set()
    assert all((ROOT / dep).exists() for dep in declared)
    assert len(declared) <= 12


def test_dvc_exp_show_has_few_columns() -> None:
    stages = PIPELINE["stages"].values()
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

    def resolved(dep: str) -> str:
        return re.sub(r"\$\{(\w+)\.(\w+)\}", lambda found: values[found[1]][found[2]], dep)

    assert len({resolved(dep) for stage in stages for dep in stage["deps"]}) <= 30
    metrics = [name for stage in stages for metric in stage.get("metrics", []) for name in metric]
    assert metrics == ["metrics/evaluate.json"]
    assert len(json.loads((ROOT / metrics[0]).read_text(encoding="utf-8"))) == 12


def test_every_plot_has_a_title_and_named_axes() -> None:
    top = [settings for plot in PIPELINE["plots"] for settings in plot.values()]
    of_stages = [
        settings
        for stage in PIPELINE["stages"].values()
        for plot in stage.get("plots", [])
        for name, settings in plot.items()
        if not name.startswith("metrics/")  # without a list, which is not drawn
    ]
    assert len(top) + len(of_stages) <= 12
    for settings in [*top, *of_stages]:
        assert {"title", "x", "y", "y_label"} <= settings.keys()


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"evaluate"}))
def test_dvc_keeps_a_stage_in_its_run_cache(stage: str) -> None:
    """It does not if the stage has an output in git that is neither a metric nor a plot."""
    outs = PIPELINE["stages"][stage]["outs"]
    assert all(isinstance(out, str) for out in outs)


def test_evaluate_depends_on_every_network_and_its_code() -> None:
    deps = PIPELINE["stages"]["evaluate"]["deps"]
    for name in NETWORKS:
        assert f"models/{name}" in deps
        file = Path(inspect.getfile(NETWORKS[name])).relative_to(ROOT).as_posix()
        assert any(_covers(dep, file) for dep in deps)
        assert name in PIPELINE["stages"]["evaluate"]["params"]
        assert f"train_{name}" in PIPELINE["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_the_parameters_it_declares_and_no_others(stage: str) -> None:
    read: set[str] = set()
    for file in imported_files(f"titles.stages.{stage}"):
        if file in NOT_TRACKED:
            continue
        for node in ast.walk(_tree(ROOT / file)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "params"
                and node.attr in Params.model_fields
            ):
                read.add(node.attr)
    networks = {
        "evaluate": set(NETWORKS),
        **{f"train_{name}": {name} for name in NETWORKS},
    }.get(stage, set())
    declared = {name.partition(".")[0] for name in PIPELINE["stages"][stage]["params"]}
    assert read | networks == declared


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does(stage: str) -> None:
    assert len(PIPELINE["stages"][stage]["desc"]) > 20


@pytest.mark.parametrize("name", NETWORKS)
def test_a_change_to_one_network_leaves_the_others_alone(name: str) -> None:
    file = f"src/titles/models/{name}.py"
    for other in set(NETWORKS) - {name}:
        assert not any(_covers(dep, file) for dep in PIPELINE["stages"][f"train_{other}"]["deps"])


def test_only_evaluate_depends_on_the_test_split() -> None:
    users = [name for name in STAGES if "data/prepared/test" in PIPELINE["stages"][name]["deps"]]
    assert users == ["evaluate"]


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("gensim", {"vectors.py"}),
        ("dvclive", {"curves.py"}),
        (
            "mlflow",
            {
                "mlflow.py",
                "local_store.py",
                "mlflow_sync.py",
                "mlflow_parents.py",
                "mlflow_datasets.py",
                "mlflow_writing.py",
                "registry.py",
                "mlflow_model.py",
                "http_requests.py",
            },
        ),
        ("dvc", {"store.py", "queue.py", "clones.py", "tracked.py"}),
        ("optuna", {"study.py", "runner.py", "page.py"}),
    ],
)
def test_a_library_is_imported_by_its_owners_alone(library: str, owners: set[str]) -> None:
    importers = {p.name for p in SOURCES if any(i.split(".")[0] == library for i in _imports(p))}
    assert importers == owners


ALL_SOURCES = [*SOURCES, *sorted((ROOT / "benchmarks").glob("*.py"))]


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (r"(np|numpy)\.load", "allow_pickle=False"),
        (r".*\.extract(all)?", "**_FILTER"),
        (r".*\.bind|.*create_server|(.*\.)?[A-Z]\w*Server", "('127.0.0.1',"),
        (r".*\.(add_)?argument", "default='127.0.0.1'"),
    ],
)
def test_arrays_archives_and_addresses_are_not_trusted(call: str, wanted: str) -> None:
    """What no rule of ruff sees; other ways to run what a file holds are banned in pyproject.toml."""
    for path in ALL_SOURCES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and re.fullmatch(call, ast.unparse(node.func)):
                text = ast.unparse(node)
                given = "'--host'" in text if "argument" in call else not text.endswith("()")
                assert not given or wanted in text or _known(path, text), f"{path}: {text}"


def _known(path: Path, text: str) -> bool:
    """Servers that take the address which --host gives, 127.0.0.1 by default."""
    return path.name == "http.py" and text.startswith("socket.create_server((str(address[0]), ")


@pytest.mark.parametrize(
    "source",
    [
        *(
            f"import {name}"
            for name in ("pickle", "cloudpickle", "dill", "shelve", "marshal", "jsonpickle")
        ),
        "def f():\n    from pickle import loads as read\n    read(b'')",
        "import importlib\nimportlib.import_module('dill')",
        "from importlib import import_module\nimport_module(name)",
        "import torch as t\nt.load(file)",
        "from torch import load\nload(file, weights_only=True)",
        "import joblib\njoblib.load(file)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "import os\nos.system(text)",
        "from subprocess import run\nrun(text, shell=True)",
        "import pandas as pd\npd.read_pickle(file)",
        "from gensim.models import KeyedVectors\nKeyedVectors.load(file)",
        "import gensim\ngensim.models.Word2Vec.load(file)",
        "import shutil\nshutil.unpack_archive(file)",
        "import requests\nrequests.get(url, verify=False)",
        "import tempfile\ntempfile.mktemp()",
        "HOST = '0.0.0.0'",
        "import mlflow\nmlflow.pyfunc.load_model(uri)",
    ],
)
def test_ruff_notices_what_runs_or_unpickles_a_file(source: str) -> None:
    command = [
        "ruff",
        "check",
        "--quiet",
        "--select",
        "S,TID251",
        "--stdin-filename",
        "src/titles/x.py",
        "-",
    ]
    found = subprocess.run(command, cwd=ROOT, input=source, text=True, capture_output=True, check=False)
    assert found.returncode == 1, found.stdout + found.stderr


def test_the_public_face_is_for_other_programs() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert "titles.load" not in names(path), path


def test_stages_are_thin() -> None:
    for path in (ROOT / "src/titles/stages").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """The packages of a lock, each with the hashes of its files."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            named, *hashes = line.split(" --hash=")
            one = Requirement(named.strip())
            assert one.name not in found, "one version for all"
            found[one.name] = one, [each.strip() for each in hashes]
    return found


def test_locks_pin_every_dependency_for_all_supported_machines() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for one in project["optional-dependencies"].values() for name in one]
    torch = Requirement((ROOT / "requirements-torch.txt").read_text().splitlines()[-1])
    assert torch.name == "torch"
    of_all = locked("requirements-dev.lock")
    of_the_pipeline = locked("requirements.lock")
    for lock, wanted in (
        (of_the_pipeline, project["dependencies"]),
        (of_all, project["dependencies"] + extras),
        (locked("requirements-uv.lock"), ["uv"]),
    ):
        for here in map(Requirement, wanted):
            one, _ = (torch, []) if here.name == "torch" else lock[canonicalize_name(here.name)]
            (version,) = one.specifier
            assert version.operator == "=="
            assert here.specifier.contains(version.version), here
            for python in ("3.11", "3.12", "3.13"):
                for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")):
                    place = {"python_full_version": f"{python}.1", "python_version": python}
                    place |= {"sys_platform": system, "platform_machine": machine}
                    assert one.marker is None or one.marker.evaluate(place)
    for lock in (of_all, of_the_pipeline):
        for one, hashes in lock.values():
            assert hashes, one
            assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), one
    # What the pipeline needs has the same versions and files with and without the extras.
    for name, (one, hashes) in of_the_pipeline.items():
        assert (one.specifier, hashes) == (of_all[name][0].specifier, of_all[name][1])
    # Packages for accelerators, whose files differ from machine to machine, come with torch.
    assert not [name for name in of_all if re.match("torch$|triton|cuda|nvidia-(?!ml-py)", name)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_make_targets_that_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    parts = sections(read(document))
    code = [line for one in parts for line in [*one.commands, *one.code]]
    named = {match[1] for line in code if (match := re.match("make ([a-z-]+)", line))}
    assert named <= targets
    if document == "README.md":
        assert {"run", "test"} <= named


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_documents_lead_somewhere(document: str) -> None:
    for link in [link for one in sections(read(document)) for link in one.links]:
        path, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        target = normpath(PurePosixPath(document).parent / path) if path else document
        assert (ROOT / target).exists(), link
        assert not anchor or anchor in [one.anchor for one in sections(read(target))], link


def test_the_index_of_the_documentation_lists_every_page() -> None:
    linked = {link for one in sections(read("docs/README.md")) for link in one.links}
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    root = {f"../{name}" for name in DOCUMENTS if "/" not in name}
    assert linked == pages | root


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


def test_a_citation_leaves_the_version_to_the_project() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()
    assert "version" not in cited


def test_the_changelog_follows_the_version() -> None:
    version = Version(tomllib.loads(read("pyproject.toml"))["project"]["version"])
    first, *released = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.M)
    assert first == "Unreleased"
    assert released == sorted(released, key=Version, reverse=True)
    # A version under development is later than all in the changelog, a released one is the latest there.
    assert version > Version(released[0]) if version.is_devrelease else str(version) == released[0]
    tags = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True)
    assert {tag.removeprefix("v") for tag in tags.stdout.split()} <= set(released)
    done = subprocess.run(["titles", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"titles {version}\n"


def test_upgrading_names_the_parameters_that_files_of_the_version_before_lack() -> None:
    values = yaml.safe_load(read("params.yaml"))
    (table,) = re.findall(
        r"^\| parameter \| do \|\n\|---\|---\|\n((?:\|.*\n)+)", read("docs/upgrading.md"), re.M
    )
    added = re.findall(r"`(\w+)\.(\w+)`", table)
    assert len(added) == 9
    for section, name in added:
        del values[section][name]
    with pytest.raises(ValueError, match=r"has 9 problems") as told:
        parse_params(values, "params.yaml")
    for section, name in added:
        assert f"{section}.{name}: " in str(told.value)


def test_git_ignores_what_the_commands_of_the_documents_write() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    written = set(re.findall(r"^titles .*--(?:out|html|md|markdown) ([\w./-]+)", text, re.M))
    assert {"why.html", "exported/cnn", "found.parquet"} <= written
    found = subprocess.run(
        ["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert set(found.stdout.split()) == written
