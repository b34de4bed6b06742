"""A profile of the rows that a model learns from, and the drift of later rows from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titles.data.contract import NO_REFERENCE
from titles.data.documents import read_bytes
from titles.listings.names import canonical, listed
from titles.params import Prepare

_QUANTILES = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_NAMED = 10  # the most categories in a warning
_DECIMALS = 6

Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[dict[str, Share], Field(min_length=1)]


class Profile(BaseModel):
    """The rows of all splits together."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    rows: Annotated[int, Field(ge=1)]
    categories: Shares  # of the rows, for each category that occurs
    languages: Shares
    unknown_words: Share | None  # of the words of validation; None without validation rows
    title_words: dict[str, Annotated[int, Field(ge=0)]]  # quantiles of the words per title
    rejected: Share  # unused rows among those of the wanted language


def shares(names: list[str], codes_N: NDArray[Any]) -> dict[str, float]:
    """Share of each name that occurs; codes_N are positions in `names`."""
    counts = np.bincount(codes_N, minlength=len(names))
    return {
        name: round(count / len(codes_N), _DECIMALS)
        for name, count in zip(names, counts.tolist(), strict=True)
        if count
    }


def quantiles(lengths_N: NDArray[np.int32]) -> dict[str, int]:
    """Quantiles of the words per title: 5, 25, 50, 75 and 95 %."""
    found = np.quantile(lengths_N, list(_QUANTILES.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(_QUANTILES, found, strict=True)}


def read(path: str) -> Profile | None:
    """The profile that `prepare.reference` names; None if it is NO_REFERENCE.

    Raises ValueError if it is missing or not a profile.
    """
    if path == NO_REFERENCE:
        return None
    try:
        found = Profile.model_validate_json(read_bytes(Path(path)))
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        reason = f"it is not a profile of data: {error.errors()[0]['msg']}"
    else:
        if set(found.title_words) == set(_QUANTILES):
            # Earlier versions kept the spellings of a category apart.
            named: dict[str, float] = {}
            for name, share in found.categories.items():
                named[canonical(name)] = named.get(canonical(name), 0.0) + share
            return found.model_copy(update={"categories": named})
        reason = f"it is not a profile of data: title_words must have {', '.join(_QUANTILES)}"
    raise ValueError(
        f"prepare.reference is {path}: {reason}. Name a copy of data/prepared/profile.json, made when "
        f"the models in use were trained, or {NO_REFERENCE}"
    )


def compare(now: Profile, reference: Profile) -> dict[str, Any]:
    """The drift of `now` from `reference`, for metrics/prepare.json.

    categories, languages: total variation distance of the shares, 0 (equal) to 1 (disjoint).
    unknown_words, rejected: rise of the share; unknown_words is left out if either profile has none.
    length: the largest difference of a quantile, in words.
    """
    lengths = (abs(now.title_words[name] - reference.title_words[name]) for name in _QUANTILES)
    found: dict[str, Any] = {
        "categories": _distance(now.categories, reference.categories),
        "new_categories": len(now.categories.keys() - reference.categories.keys()),
        "vanished_categories": len(reference.categories.keys() - now.categories.keys()),
        "languages": _distance(now.languages, reference.languages),
        "length": max(lengths),
        "rejected": round(now.rejected - reference.rejected, _DECIMALS),
    }
    if now.unknown_words is not None and reference.unknown_words is not None:
        found["unknown_words"] = round(now.unknown_words - reference.unknown_words, _DECIMALS)
    return found


def warnings(figures: dict[str, Any], now: Profile, reference: Profile, settings: Prepare) -> list[str]:
    """A line for each figure of `compare` that exceeds its threshold in `settings`."""
    lines = []
    for name in ("categories", "languages", "unknown_words", "length", "rejected"):
        threshold = getattr(settings, f"drift_{name}")
        if figures.get(name, 0) <= threshold:
            continue
        line = f"the data differs from {settings.reference}: {name} {figures[name]:g}, past "
        line += f"prepare.drift_{name} = {threshold:g}"
        if name in ("categories", "languages"):
            ours, theirs = getattr(now, name), getattr(reference, name)
            line += _named("new", ours, theirs) + _named("vanished", theirs, ours)
        lines.append(line)
    return lines


def _distance(one: dict[str, float], other: dict[str, float]) -> float:
    names = sorted(one.keys() | other.keys())
    # Not by sum(), which rounds otherwise since Python 3.12.
    return round(math.fsum(abs(one.get(n, 0) - other.get(n, 0)) for n in names) / 2, _DECIMALS)


def _named(what: str, ours: dict[str, float], theirs: dict[str, float]) -> str:
    """The names that `theirs` lacks, those with the most rows first."""
    names = sorted(ours.keys() - theirs.keys(), key=lambda name: (-ours[name], name))
    return f"; {what}: {listed(names, _NAMED)}" if names else ""
