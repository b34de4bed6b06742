"""A folder for the Hugging Face Hub: trained networks, a model card, and code that runs without this
package.

The code is copied, so that titles are read as here: modules of this package with the names of the
modules that they import changed, and networks without the schema of their parameters.
"""

from __future__ import annotations

import ast
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from titles.data.contract import LABELS_FILE, VOCABULARY_FILE
from titles.data.messages import printable
from titles.models.parts import golden, saved
from titles.models.registry import AVERAGE, NETWORKS
from titles.predict.classifier import Classifier
from titles.serve.hub import card

PACKAGE = "inference"
MARK = f"{PACKAGE}/networks.py"  # the file that marks an export of this kind
EXAMPLES = [
    "Funda Para Celular Samsung J7",
    "Tênis Infantil 2,5 cm ENVÍO GRATIS",
    "Xqztw-99 100% 手机壳",
]
# Modules here, and their names in the folder.
_LAYERS = f"{PACKAGE}.layers"
_MODULES = {
    "titles.data.contract": f"{PACKAGE}.contract",
    "titles.data.subwords": f"{PACKAGE}.subwords",
    "titles.models.parts.windows": f"{PACKAGE}.windows",
    "titles.prepare.text": f"{PACKAGE}.text",
    "titles.serve.hub.layers": _LAYERS,
}
_NAMES = _MODULES | {
    "titles.models.registry": f"{PACKAGE}.networks",
    **{
        f"titles.models.parts.{name}": _LAYERS for name in ("embedding", "layers", "network", "products")
    },
}
_OF_SCHEMAS = ("pydantic", "titles.params")  # needed for the types of parameters only
_REQUIRED = ("numpy", "safetensors", "torch")
# Of a model; golden examples come as well.
_FILES = "model.json", "weights.safetensors", VOCABULARY_FILE, LABELS_FILE
_AGREE = 1e-4
_REASON = 300  # characters


def write(folders: Sequence[Path], out: Path) -> None:
    """Write the model folders, one per network, into `out`, an existing folder, and compare what its
    predict.py predicts with these networks.

    Raises:
        ValueError: a folder is missing or damaged, of a format that this version does not read, or of a
            network that was trained on different data than the first; a network imports what the folder
            does not have; or predictions differ.
    """
    models = [saved.read(folder, NETWORKS) for folder in folders]
    classifier = Classifier(models, torch.device("cpu"))
    for folder, model in zip(folders, models, strict=True):
        (out / model.name).mkdir()
        for name in (*_FILES, golden.GOLDEN_FILE):
            if name in _FILES or (folder / name).exists():  # an older format has no examples
                shutil.copyfile(folder / name, out / model.name / name)
    (out / PACKAGE).mkdir()
    for module, name in _MODULES.items():
        _copy(module, out, name)
    _copy("titles.serve.hub.predict", out, "predict")
    lines = ['"""The networks of the folder by name."""', ""]
    entries = []
    for model in models:
        build = NETWORKS[model.name]
        _copy(build.__module__, out, f"{PACKAGE}.{model.name}", build.Section.__name__)
        lines.append(f"from {PACKAGE}.{model.name} import {build.__name__}")
        entries.append(f'"{model.name}": {build.__name__}')
    lines += ["", f"NETWORKS = {{{', '.join(entries)}}}", ""]
    (out / MARK).write_text("\n".join(lines), encoding="utf-8")
    # Without local labels such as +cpu.
    pinned = [f"{name}=={version(name).partition('+')[0]}\n" for name in _REQUIRED]
    (out / "requirements.txt").write_text("".join(pinned), encoding="utf-8")
    chosen = AVERAGE if len(models) > 1 else models[0].name
    text = card.text(chosen, models, card.Project.of(folders[0].parent))
    (out / "README.md").write_text(text, encoding="utf-8")
    _compare(classifier, out)


def _copy(module: str, out: Path, name: str, schema: str = "") -> None:
    source = Path(__file__).parents[3].joinpath(*module.split(".")).with_suffix(".py")
    text = source.read_text(encoding="utf-8")
    path = out.joinpath(*name.split(".")).with_suffix(".py")
    path.write_text(standalone(text, module, schema), encoding="utf-8")


def standalone(text: str, module: str, schema: str = "") -> str:
    """The source of a module as it stands in the folder.

    Args:
        schema: the class of a network's parameters, which is left out.

    Raises:
        ValueError: it imports what the folder does not have.
    """
    tree = ast.parse(text)
    lines: list[str | None] = list(text.splitlines(keepends=True))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and schema:
            dropped: list[ast.stmt] = [node] if node.name == schema else []
            dropped += [
                part
                for part in node.body
                if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "Section"
            ]
            for part in dropped:
                _drop(lines, part)
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
            if node.module in _OF_SCHEMAS:
                _drop(lines, node)
                continue
            line = lines[node.lineno - 1]
            if node.module in _NAMES and line:
                lines[node.lineno - 1] = line.replace(node.module, _NAMES[node.module], 1)
                continue
        for name in imported:
            root = name.partition(".")[0]
            if root not in sys.stdlib_module_names and root not in _REQUIRED:
                raise ValueError(
                    f"{module} imports {name}, which a folder for the Hub does not have: put what is "
                    f"needed of it into {module}"
                )
    return "".join(line for line in lines if line is not None)


def _drop(lines: list[str | None], node: ast.stmt) -> None:
    last = node.end_lineno or node.lineno
    if isinstance(node, ast.ClassDef):  # with the blank lines after it
        while last < len(lines) and not (lines[last] or "").strip():
            last += 1
    lines[node.lineno - 1 : last] = [None] * (last - node.lineno + 1)


def _compare(classifier: Classifier, out: Path) -> None:
    """Run predict.py, without what the environment adds to Python's path."""
    command = [sys.executable, "-I", "-B", str(out / "predict.py"), "--top", "1", *EXAMPLES]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        reason = printable((done.stderr.strip().splitlines() or ["it ended"])[-1][:_REASON])
        raise ValueError(f"predict.py of the folder does not run: {reason}")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    wanted = classifier.top(EXAMPLES, 1)
    for row, (category,), (share,) in zip(
        rows, wanted.categories_NK.tolist(), wanted.probabilities_NK.tolist(), strict=True
    ):
        found = row["category_1"], float(row["probability_1"] or 0)
        label = classifier.labels[category] if category >= 0 else ""
        if found[0] != label or abs(found[1] - share) > _AGREE:
            raise ValueError(
                f"predict.py of the folder gives {row['title']} the category {found[0]} "
                f"({found[1]:.6f}), the networks here give {label} ({share:.6f})"
            )
