"""The space of a search: parameters of params.yaml with the values to try, and when they count."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from titles.experiments.suite.plan import Settings, Strict
from titles.models.registry import AVERAGE, NETWORKS, parse_params
from titles.params import Number, Params

ACCURACY: Literal["validation_balanced_accuracy"] = "validation_balanced_accuracy"
SECONDS = "training_seconds"
Value: TypeAlias = Any  # of a parameter, or a mapping of several parameters to values


class Trial(Protocol):
    """The part of an Optuna trial that proposes values."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...


def as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


# Neither infinite nor too large for a whole number of Optuna.
_Bounded = Annotated[Number, Field(ge=-1e15, le=1e15)]


class _Entry(Strict):
    """when: names of parameters that this space sets, and the values that make this entry count."""

    model_config = ConfigDict(strict=True)  # true is no number

    when: dict[str, Annotated[list[Any], Field(min_length=1), BeforeValidator(as_list)]] = Field(
        default_factory=dict
    )


class Range(_Entry):
    low: _Bounded
    high: _Bounded
    step: Annotated[_Bounded, Field(gt=0)] | None = None
    log: bool = False


class Choices(_Entry):
    choices: Annotated[list[Any], Field(min_length=1)]


@dataclass(frozen=True)
class Parameter:
    """An entry of the space: a parameter, or a name for several that are set together.

    whole: a range of integers.
    """

    name: str
    entry: Range | Choices
    whole: bool = False

    @property
    def sets(self) -> list[str]:
        """Dotted names of the parameters that this entry sets."""
        if isinstance(self.entry, Choices) and isinstance(self.entry.choices[0], dict):
            return list(dict.fromkeys(name for choice in self.entry.choices for name in choice))
        return [self.name]

    @property
    def ends(self) -> list[Value]:
        """Both ends of a range, or all choices."""
        if isinstance(self.entry, Choices):
            return self.entry.choices
        ends = [self.entry.low, self.entry.high]
        return [int(end) for end in ends] if self.whole else ends

    def settings(self, value: Value) -> dict[str, Any]:
        return dict(value) if isinstance(value, dict) else {self.name: value}

    def suggest(self, trial: Trial) -> Value:
        entry = self.entry
        if isinstance(entry, Choices):
            labels = {label(choice): choice for choice in entry.choices}
            return labels[trial.suggest_categorical(self.name, list(labels))]
        if self.whole:
            low, high = self.ends
            return trial.suggest_int(self.name, low, high, step=int(entry.step or 1), log=entry.log)
        return trial.suggest_float(self.name, entry.low, entry.high, step=entry.step, log=entry.log)

    def label_of(self, base: Mapping[str, Any]) -> Any:
        """The value of parameters as Optuna holds it, or None if this entry does not have it."""
        if isinstance(self.entry, Choices):
            for choice in self.entry.choices:
                wanted = self.settings(choice)
                if all(name in base and same(base[name], value) for name, value in wanted.items()):
                    return label(choice)
            return None
        value = base.get(self.name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        low, high, step = self.entry.low, self.entry.high, self.entry.step
        on_step = not step or abs((value - low) / step - round((value - low) / step)) < 1e-9
        return value if low <= value <= high and on_step else None


@dataclass(frozen=True)
class Space:
    """A checked file. base: values of params.yaml as they are written; values: parsed, dotted.

    parameters: each after those that its conditions name.
    """

    network: str
    objectives: list[str]
    sampler: str
    seed: int
    early_stopping: str
    parameters: list[Parameter]
    base: Settings
    values: dict[str, Any]
    digest: str = field(compare=False)

    @property
    def networks(self) -> list[str]:
        """The networks that are searched."""
        return [*NETWORKS] if self.network == AVERAGE else [self.network]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The settings that Optuna proposes, under dotted names."""
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if self._counts(parameter, chosen):
                chosen |= parameter.settings(parameter.suggest(trial))
        return chosen

    def default(self) -> dict[str, Any]:
        """The values of params.yaml that the space has, as Optuna holds them."""
        found = {p.name: p.label_of(self.values) for p in self.parameters if self._counts(p, {})}
        return {name: label for name, label in found.items() if label is not None}

    def params(self, settings: Mapping[str, Any]) -> Params:
        """All parameters with settings over them; raises ValueError if the schema refuses them."""
        values = dict(self.base)
        for name, value in nested(settings).items():
            values[name] = {**values[name], **value} if isinstance(value, dict) else value
        return parse_params(values, "trial")

    def _counts(self, parameter: Parameter, chosen: Mapping[str, Any]) -> bool:
        values = {**self.values, **chosen}
        return all(
            any(same(values[name], value) for value in allowed)
            for name, allowed in parameter.entry.when.items()
        )


def nested(settings: Mapping[str, Any]) -> Settings:
    """Settings under dotted names as sections."""
    found: Settings = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal; true is not 1, and 1e-3 may be text, as YAML 1.1 reads it."""
    return _plain(one) == _plain(other)


def shown(settings: Mapping[str, Any]) -> str:
    """Settings in one line, numbers rounded."""
    return ", ".join(f"{name} {shown_value(value)}" for name, value in settings.items()) or "params.yaml"


def shown_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return json.dumps(value, sort_keys=True)


def label(choice: Value) -> Any:
    """A choice as Optuna can hold it: lists and mappings as JSON."""
    return choice if isinstance(choice, bool | int | float | str) else json.dumps(choice)
