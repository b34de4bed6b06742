"""The measures of a plan's experiments beside published figures, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from titles.data.files import atomic_file
from titles.experiments.store import Scores
from titles.experiments.suite.plan import Plan
from titles.tracking.provenance import flat


def shown(plan: Plan, scores: Mapping[str, Scores], form: str = "simple") -> str:
    """The measures of experiments beside published ones.

    Args:
        scores: by experiment. form: "simple" for the terminal or "github" for Markdown.
    """
    rows = []
    for name, case in plan.experiments.items():
        score, published = scores[name][case.network], case.published
        low, high = score["balanced_accuracy_low"], score["balanced_accuracy_high"]
        rows.append(
            {
                "experiment": name,
                "network": case.network,
                "settings": _listed(case.settings, "{} {}"),
                "balanced accuracy": f"{score['balanced_accuracy']:.3f}",
                "95 % interval": f"{low:.3f} .. {high:.3f}",
                "loss": f"{score['loss']:.3f}",
                "published": f"{published.balanced_accuracy:.3f}" if published else "-",
                "published loss": f"{published.loss:.3f}" if published else "-",
            }
        )
    if not _has_published(plan):
        rows = [{k: v for k, v in row.items() if not k.startswith("published")} for row in rows]
    return str(tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True))


def caveat(plan: Plan) -> str:
    """Why published figures cannot be compared directly; "" if there are none."""
    if not _has_published(plan):
        return ""
    where = f" on {plan.published_on}" if plan.published_on else ""
    return (
        f"Published figures were measured{where}, with other code. Data and code differ from those "
        "here, so the columns do not compare one to one: look at how experiments rank within each."
    )


def write_markdown(plan: Plan, scores: Mapping[str, Scores], baseline: str, path: Path) -> None:
    """Write the table, and how to reproduce it, to a Markdown file.

    Raises:
        ValueError: the file cannot be written.
    """
    common = _listed(plan.settings, "`{}` {}")
    parts = [
        f"# {plan.about}",
        "Figures are those of the network that an experiment is about, on the test split; intervals by "
        "a bootstrap within categories.",
        shown(plan, scores, "github"),
        caveat(plan),
        f"All experiments set {common}." if common else "",
        f"Commit {baseline[:7]}. `titles pruebas` runs them, `dvc exp show` has all that was measured.",
    ]
    with atomic_file(path) as partial:
        partial.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def _has_published(plan: Plan) -> bool:
    return any(case.published for case in plan.experiments.values())


def _listed(settings: Mapping[str, Any], form: str) -> str:
    return ", ".join(form.format(name, value) for name, value in flat(settings).items())
