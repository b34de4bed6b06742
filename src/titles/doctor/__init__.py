"""What is wrong with the environment, and what to do about it.

Looks and changes nothing, but for what DVC and git note down when asked for a status: .dvc/tmp, and the
times of files in git's index. What can keep one waiting, which is networks and other programs, has
seconds, then counts as a finding. Only the standard library is imported at the top: the doctor is there
when packages are not. No credential is printed: addresses are cut to what is no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from titles.doctor import data, environment, project, store, words
from titles.doctor.finding import PROBLEM, Finding


def examine(folder: Path) -> Iterator[Finding]:
    """Everything that can be looked at from `folder`, the project's or any other, as it is found."""
    root = next(
        (
            place
            for place in (folder, *folder.parents)
            if (place / "dvc.yaml").is_file() and (place / "params.yaml").is_file()
        ),
        None,
    )
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", lambda: environment.python(root)),
        ("packages", lambda: environment.packages(root)),
        ("encoding", environment.encoding),
        ("git", lambda: project.git(root or folder, root is not None)),
        ("project", lambda: project.place(root, folder)),
    ]
    if root:
        checks += [
            ("params", lambda: project.params(root)),
            ("leftovers", lambda: project.leftovers(root)),  # before DVC runs, which tidies up itself
            ("dvc", lambda: data.dvc(root)),
            ("file names", lambda: project.file_names(root)),
        ]
    checks.append(("mlflow", lambda: store.mlflow(root)))
    for name, check in checks:
        try:
            for finding in check():
                yield finding._replace(found=words.line(finding.found), do=words.line(finding.do))
        except ImportError as error:
            told = f"cannot be checked: {error.name} is not installed"
            yield Finding(name, PROBLEM, told, "`make install`")
        except Exception as error:  # the others still have something to say
            yield Finding(
                name, PROBLEM, words.line(f"cannot be checked: {type(error).__name__}: {error}")
            )
