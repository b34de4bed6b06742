"""Mistakes in a file, as pydantic finds them, in words for its author."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

_LISTED = 50  # problems in a message
_SHOWN = 100  # characters of a key or a text in it
_value = reprlib.Repr()
_value.maxstring = _value.maxother = _value.maxlong = _SHOWN
_value.maxlist = 20


def described(error: ValidationError, form: type[BaseModel], renamed: Mapping[str, str]) -> list[str]:
    """A line for each problem, as many as a person reads, the last one with the number of the others.

    Args:
        form: the schema. renamed: new names by old ones.
    """
    found = error.errors(include_url=False, include_context=False)
    lines = [_described(dict(problem), form, renamed) for problem in found[:_LISTED]]
    return lines + [f"and {len(found) - _LISTED} more"] * (len(found) > _LISTED)


def _described(problem: dict[str, Any], form: type[BaseModel], renamed: Mapping[str, str]) -> str:
    keys = [str(key)[:_SHOWN] for key in problem["loc"]]
    dotted = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        if keys[-1] in renamed:
            return f"{dotted}: is called {renamed[keys[-1]]} now"
        near = difflib.get_close_matches(keys[-1], _keys(form, keys[:-1]), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{dotted}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{dotted}: missing"
    message = {
        "tuple_type": "must be a list",
        "model_type": "must be a section with keys",
    }.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    message = message.replace("{section}", keys[0] if keys else "")
    if isinstance(problem["input"], dict):
        return f"{dotted}: {message}" if dotted else message
    return f"{dotted}: {message}, not {_value.repr(problem['input'])}"


def _keys(model: type[BaseModel], section: list[str]) -> list[str]:
    for key in section:
        annotation = model.model_fields[key].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)
