"""Parameters of older versions, in the form of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from titles.data.auto import LARGEST_BATCH
from titles.data.contract import NO_CORRECTIONS, NO_REFERENCE
from titles.params import RENAMED

# Ends the split seed of versions in which the words of a title decided its split, not the title as it
# stands: the same seed gives other test titles now.
BY_WORDS = ", by words"

# Parameters that came later, with the value that stands for what was done without them, or a function of
# all values that gives it. They belong to the sections that have the key named first: `batch_size` is in
# the section of every network. Not listed is what has no such value: it stays unknown.
_BEFORE: dict[str, dict[str, Any]] = {
    "test_fraction": {
        "split_seed": lambda values: f"{values['seed']}{BY_WORDS}" if "seed" in values else None,
        "reference": NO_REFERENCE,
        "corrections": NO_CORRECTIONS,
        "calibration_share": 0.0,
    },
    "batch_size": {
        "word_dropout": 0.0,
        "heads": 1,
        "subword_buckets": 0,
        "schedule": "constant",
        "logit_adjustment": 0.0,
        "label_smoothing": 0.0,
        "gce_q": 0.0,
        "set_aside_below": 0.0,
        "precision": "float32",
        "saved_weights": "float32",
    },
    "threads": {"portable": False},
    "hidden_layers": {"leading_words": 0},
}


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of an older version, under dotted names, in the form of this one.

    Parameters have their present names, and those that came later the value that they had in effect.
    Values of this version stay as they are. A parameter of which neither can be said is left out.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, dot, key = name.rpartition(".")
        found[f"{section}{dot}{RENAMED.get(key, key)}"] = value
    for name in list(found):
        section, dot, key = name.rpartition(".")
        if key == "batch_size" and dot:
            steps = f"{section}.min_steps"
            found[name], found[steps] = _batch_size(found[name], found.get(steps))
        for later, meant in _BEFORE.get(key, {}).items() if dot else ():
            value = meant(found) if callable(meant) else meant
            if value is not None:
                found.setdefault(f"{section}.{later}", value)
    return found


def _batch_size(size: Any, steps: Any) -> tuple[Any, Any]:
    """The meaning of a batch size beside `min_steps`.

    A number was an upper limit there, as that of `auto` is now: batches were smaller where data gave
    fewer steps. Other limits cannot be said in this version.
    """
    if not isinstance(size, int) or not isinstance(steps, int):
        return size, steps
    if steps == 1:
        return size, None
    return ("auto" if size == LARGEST_BATCH else f"at most {size}"), steps
