"""The modules of the package that a module really imports, however deep."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parent.parent / "src"
FACE = SRC / "titles/__init__.py"


def _file(module: str) -> Path | None:
    base = SRC.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def names(path: Path) -> set[str]:
    """What a file imports from the package: modules, or values of modules."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # types change no output
        if path == FACE and isinstance(node, ast.FunctionDef):
            continue  # for other programs; nothing in the package calls it
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from titles import x` may name a module as well as a value.
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "titles"}


def directly_imported_files(path: Path) -> set[str]:
    """Paths, from the project's folder, of the package's files that a file imports itself."""
    files = {_file(name) for name in names(path)}
    return {file.relative_to(SRC.parent).as_posix() for file in files - {None, path} if file}


def imported_files(module: str) -> set[str]:
    """Paths, from the project's folder, of `module` and of all that it imports from the package."""
    start = _file(module)
    assert start is not None, module
    seen, waiting = {start}, [start]
    while waiting:
        for name in names(waiting.pop()):
            path = _file(name)
            if path is not None and path not in seen:
                seen.add(path)
                waiting.append(path)
    return {path.relative_to(SRC.parent).as_posix() for path in seen}
