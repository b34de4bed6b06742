"""Reads the file of a search, and finds all its mistakes before any work."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, Field, JsonValue, ValidationError

from titles.data.documents import read_yaml_text
from titles.experiments.search.space import (
    ACCURACY,
    Choices,
    Parameter,
    Range,
    Space,
    as_list,
    label,
    same,
    shown,
)
from titles.experiments.store import SPLITTING
from titles.experiments.suite.plan import Settings, Strict
from titles.models.registry import AVERAGE, CLASSIFIERS, NETWORKS
from titles.params import Concerns, Params
from titles.tracking.provenance import flat

# Why other parameters and sections are not searched, beside those that the schema says change no result.
_NOT_SEARCHED = {
    "seed": "is luck, not a setting: the search confirms its best trials with several seeds",
    "evaluate": "changes figures of the test split, which a search does not read",
    "prepare.reference": "changes a warning, not a network",
    "prepare.corrections": "changes labels: trials would be measured on different ones",
    **dict.fromkeys(
        (f"{network}.saved_weights" for network in NETWORKS),
        "changes files of a model, not its training",
    ),
    "prepare.calibration_share": "changes the validation split, on which trials are measured",
    **dict.fromkeys(
        SPLITTING, "changes the validation split: trials would be measured on different titles"
    ),
}
_MOST_STEPS = 1e9
_COMBINATIONS = 300  # drawn to find those that the schema refuses
_MOST_TOLD = 5
_OTHERS = 30  # drawn to find whether a value fits any of the others

Objectives = Annotated[
    list[Literal["validation_balanced_accuracy", "training_seconds"]],
    BeforeValidator(as_list),
    Field(min_length=1),
]


class _File(Strict):
    """network: the one whose accuracy counts."""

    network: str
    objectives: Objectives = Field(default=[ACCURACY])
    sampler: Literal["tpe", "random"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    early_stopping: Literal["median", "hyperband", "none"] | None = None
    space: Annotated[dict[str, dict[str, JsonValue]], Field(min_length=1)]


def read_space(file: Path, base: Settings, params: Params) -> Space:
    """Read and check the file of a search.

    Args:
        base, params: the values of params.yaml, as written and as parsed.

    Raises:
        ValueError: the file is missing or wrong; the message lists every mistake.
    """
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(StringIO(read_yaml_text(file))))
        given = _File.model_validate(content)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: name a file such as experiments/search.yaml") from None
    except ValidationError as error:
        raise _mistakes(file, [_described(dict(e), _File) for e in error.errors()]) from None
    except (ValueError, OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _mistakes(file, [str(error)]) from None  # OSError: the file holds a single value
    values = flat(params.model_dump(mode="json"))
    found = _Reader(given, base, values, _NOT_SEARCHED | _without_result(params))
    space = found.space()
    if found.problems:
        raise _mistakes(file, found.problems)
    return space


class _Reader:
    """Makes a space of a file and collects all its mistakes."""

    def __init__(
        self, given: _File, base: Settings, values: dict[str, Any], refused: dict[str, str]
    ) -> None:
        self._given, self._base, self._values, self._refused = given, base, values, refused
        self.problems: list[str] = []

    def space(self) -> Space:
        given = self._given
        self._check_head()
        entries = [self._parameter(name, entry) for name, entry in given.space.items()]
        parameters = [parameter for parameter in entries if parameter]
        self._check_names(parameters)
        ordered = self._ordered(parameters)
        several = len(given.objectives) > 1
        stopping = given.early_stopping or ("none" if several else "median")
        text = json.dumps(given.model_dump(mode="json"), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        space = Space(
            given.network, list(given.objectives), given.sampler, given.seed, stopping, ordered,
            self._base, self._values, digest,
        )  # fmt: skip
        self.problems += dict.fromkeys(_refused_values(space))
        if not self.problems:
            self.problems += dict.fromkeys(_refused_combinations(space))
        return space

    def _check_head(self) -> None:
        given = self._given
        if given.network not in CLASSIFIERS:
            self.problems.append(
                f"network: must be one of {', '.join(CLASSIFIERS)}, not {given.network!r}"
            )
        if ACCURACY not in given.objectives:
            self.problems.append(f"objectives: must have {ACCURACY}; alone, short trainings would win")
        if len(set(given.objectives)) < len(given.objectives):
            self.problems.append("objectives: holds one twice")
        if len(given.objectives) > 1 and given.early_stopping not in (None, "none"):
            self.problems.append(
                "early_stopping: must be none with several objectives: a trial that is stopped has no "
                "training time to compare"
            )
        if given.early_stopping == "hyperband" and given.network == AVERAGE:
            self.problems.append(
                "early_stopping: hyperband gives the epochs of one training to many trials, and the "
                "average has two trainings: search one network, or use median"
            )

    def _parameter(self, name: str, values: dict[str, Any]) -> Parameter | None:
        form: type[Range] | type[Choices] = Choices if "choices" in values else Range
        before = len(self.problems)
        when = values.get("when", {})
        try:
            entry = form.model_validate(
                {**values, "when": flat(when) if isinstance(when, dict) else when}
            )
        except ValidationError as error:
            self.problems += [f"space.{name}.{_described(dict(e), form)}" for e in error.errors()]
            return None
        if isinstance(entry, Choices):
            self._check_choices(name, entry)
            parameter = Parameter(name, entry)
        else:
            default = self._values.get(name)
            of_entry = [entry.low, entry.high, *filter(None, [entry.step])]
            integers = all(float(number).is_integer() for number in of_entry)
            parameter = Parameter(name, entry, integers and not isinstance(default, float))
            self._check_range(name, entry, parameter.whole)
        return parameter if len(self.problems) == before else None

    def _check_choices(self, name: str, entry: Choices) -> None:
        labels = [label(choice) for choice in entry.choices]
        if len(set(map(str, labels))) < len(labels):
            self.problems.append(f"space.{name}.choices: holds one twice")
        kinds = {isinstance(choice, dict) for choice in entry.choices}
        if len(kinds) > 1:
            self.problems.append(f"space.{name}.choices: either all are mappings of parameters, or none")
        elif kinds == {True}:
            flattened = [flat(choice) for choice in entry.choices]
            entry.choices[:] = flattened
            if not all(flattened):
                self.problems.append(f"space.{name}.choices: one sets no parameter")
            elif len({frozenset(choice) for choice in flattened}) > 1:
                self.problems.append(f"space.{name}.choices: all must set the same parameters")

    def _check_range(self, name: str, entry: Range, whole: bool) -> None:
        place = f"space.{name}"
        if not entry.low < entry.high:
            self.problems.append(
                f"{place}: low must be below high, not {entry.low:g} and {entry.high:g}"
            )
        elif entry.log and entry.step is not None:
            self.problems.append(f"{place}: either log or step, not both")
        elif entry.log and entry.low <= 0:
            self.problems.append(f"{place}: low must be above 0 with log, not {entry.low:g}")
        elif entry.step and (entry.high - entry.low) / entry.step > _MOST_STEPS:
            self.problems.append(f"{place}: step must be larger, not {entry.step:g}")
        elif entry.step and abs((steps := (entry.high - entry.low) / entry.step) - round(steps)) > 1e-6:
            self.problems.append(f"{place}: high must be a whole number of steps above low")
        elif isinstance(self._values.get(name), int) and not whole:
            self.problems.append(f"{place}: must be whole numbers, as in params.yaml")

    def _check_names(self, parameters: list[Parameter]) -> None:
        seen: dict[str, str] = {}
        for parameter in parameters:
            if parameter.name in self._values and parameter.name not in parameter.sets:
                self.problems.append(
                    f"space.{parameter.name}: is a parameter, and its choices set others: rename it"
                )
            for name in parameter.sets:
                if name not in self._values:
                    self.problems.append(f"space.{name}: unknown parameter{self._near(name)}")
                elif why := self._not_searched(name):
                    self.problems.append(f"space.{name}: {why}")
                if name in seen:
                    self.problems.append(
                        f"space.{name}: set twice, by {seen[name]} and {parameter.name}"
                    )
                seen[name] = parameter.name
        for parameter in parameters:
            for name in parameter.entry.when:
                if name not in seen:
                    near = difflib.get_close_matches(name, seen, n=1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    self.problems.append(
                        f"space.{parameter.name}.when.{name}: no parameter of this space{hint}"
                    )

    def _near(self, name: str) -> str:
        ends = [known for known in self._values if known.rpartition(".")[2] == name.rpartition(".")[2]]
        near = difflib.get_close_matches(name, self._values, n=1) or ends[:1]
        return f"; did you mean {near[0]}?" if near else ""

    def _not_searched(self, name: str) -> str:
        section, network = name.partition(".")[0], self._given.network
        if why := self._refused.get(name) or self._refused.get(section):
            return why
        if section in NETWORKS and network in NETWORKS and section != network:
            return f"does not change the {network}, which this search is about"
        return ""

    def _ordered(self, parameters: list[Parameter]) -> list[Parameter]:
        """Each parameter after those of its conditions; a circle is a mistake."""
        left, known = list(parameters), set[str]()
        ordered: list[Parameter] = []
        all_set = {name for parameter in parameters for name in parameter.sets}
        while left:
            ready = [p for p in left if {n for n in p.entry.when if n in all_set} <= known]
            if not ready:
                names = ", ".join(parameter.name for parameter in left)
                self.problems.append(f"space: the conditions of {names} go round in a circle")
                return ordered
            ordered += ready
            known |= {name for parameter in ready for name in parameter.sets}
            left = [parameter for parameter in left if parameter not in ready]
        return ordered


def _without_result(section: BaseModel, prefix: str = "") -> dict[str, str]:
    """Why parameters that change no result are not searched, under dotted names."""
    found: dict[str, str] = {}
    for name, about in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found |= _without_result(value, f"{prefix}{name}.")
        for mark in about.metadata:
            if isinstance(mark, Concerns):
                found[f"{prefix}{name}"] = f"changes {mark.only} only, not results"
    return found


class _Drawn:
    """Proposes ends of ranges and choices by chance, without Optuna."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random

    def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
        return float(self._pick([low, high]))

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return int(self._pick([low, high]))

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return self._pick(choices)

    def _pick(self, values: list[Any]) -> Any:
        return values[int(self._random.integers(len(values)))]


def _refused_values(space: Space) -> Iterator[str]:
    """Ends of ranges and choices that the schema of params.yaml refuses beside all values of the other
    entries, and conditions that never hold.

    Parameters that are unknown, or have conditions on such, are left out.
    """
    random = np.random.default_rng(0)
    known, usable = set[str](), list[Parameter]()
    for parameter in space.parameters:  # each after those of its conditions
        if space.values.keys() >= {*parameter.sets} and known >= parameter.entry.when.keys():
            known |= {*parameter.sets}
            usable.append(parameter)
    space = replace(space, parameters=usable)
    for parameter in usable:
        parents = _satisfying(space, parameter)
        if isinstance(parents, str):
            yield f"space.{parameter.name}.when.{parents}"
            continue
        for end in parameter.ends:
            settings = parents | parameter.settings(end)
            told = _problems(space, settings)
            for _ in range(_OTHERS if told else 0):
                others = _problems(space, space.suggest(_Drawn(random)) | settings)
                names = {problem.partition(":")[0] for problem in others}
                told = [problem for problem in told if problem.partition(":")[0] in names]
            yield from (f"space.{problem}" for problem in told)


def _refused_combinations(space: Space) -> Iterator[str]:
    """Combinations of ends and choices that the schema refuses, the first few of those drawn."""
    random, told = np.random.default_rng(0), 0
    for _ in range(_COMBINATIONS):
        settings = space.suggest(_Drawn(random))
        for problem in _problems(space, settings):
            yield f"space.{problem}, together with {shown(settings)}"
            told += 1
        if told >= _MOST_TOLD:
            return


def _satisfying(space: Space, parameter: Parameter) -> dict[str, Any] | str:
    """Settings under which an entry counts, or a message about a condition that never holds."""
    found: dict[str, Any] = {}
    setters = {name: other for other in space.parameters for name in other.sets}
    for name, allowed in parameter.entry.when.items():
        setter = setters[name]
        above = _satisfying(space, setter)
        if isinstance(above, str):
            return above
        for value in allowed:
            if isinstance(setter.entry, Choices):
                fits = [c for c in setter.entry.choices if same(setter.settings(c)[name], value)]
            else:
                fits = [value] if setter.label_of({name: value}) is not None else []
            if not fits:
                return f"{name}: {setter.name} never has the value {json.dumps(value)}"
            found |= above | setter.settings(fits[0])
    return found


def _problems(space: Space, settings: Mapping[str, Any]) -> list[str]:
    try:
        space.params(settings)
    except ValueError as error:
        # A search has no -S: docs/search.md tells how batch sizes are searched.
        return [
            re.sub(r": -S .*?(?=, not |$)", "", line.strip()) for line in str(error).splitlines()[1:]
        ]
    return []


def _mistakes(file: Path, problems: list[str]) -> ValueError:
    counted = f"{len(problems)} mistake{'s' * (len(problems) > 1)}"
    return ValueError(f"{file} has {counted}:\n  " + "\n  ".join(problems))


def _described(problem: dict[str, Any], form: type[BaseModel]) -> str:
    place = ".".join(map(str, problem["loc"])) or "file"
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), form.model_fields, n=1)
        return f"{place}: unknown key{f'; did you mean {near[0]}?' if near else ''}"
    if problem["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}, not {problem['input']!r}"
