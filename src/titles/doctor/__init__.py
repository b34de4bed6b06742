"""Find problems in the environment and say how to fix them.

The checks change nothing, except for what DVC and git write when asked for a status: .dvc/tmp, and file
times in git's index. A program or server that does not answer within seconds counts as a finding. Only
the standard library is imported at module level: the doctor runs when packages are not installed. No
credentials are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from titles.data.messages import told
from titles.doctor import environment, stores
from titles.doctor.findings import Finding, problem

# Each takes the project's folder, or None outside of a project.
Check = Callable[[Any], Iterator[Finding]]
_CHECKS: list[Check] = [environment.python, environment.packages, environment.encoding]
_CHECKS += [environment.git, environment.location, stores.mlflow]
# DVC removes some leftovers when it runs, so that they are checked first.
_CHECKS_OF_PROJECTS: list[Check] = [environment.params, environment.leftovers, stores.dvc]
_CHECKS_OF_PROJECTS += [environment.file_names]


def examine() -> Iterator[Finding]:
    """Run all checks that are possible in the current folder."""
    folders = [Path.cwd(), *Path.cwd().parents]
    roots = [f for f in folders if (f / "dvc.yaml").is_file() and (f / "params.yaml").is_file()]
    for check in [*_CHECKS, *_CHECKS_OF_PROJECTS] if roots else _CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            yield from check(roots[0] if roots else None)
        except ImportError as error:
            yield problem(name, f"cannot be checked: {error.name} is not installed", "`make install`")
        except Exception as error:  # the remaining checks still run
            yield problem(name, f"cannot be checked: {told(error)}")
