"""A file of named experiments, and the parameters that it gives each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from titles.data.documents import read_yaml_text
from titles.models.registry import CLASSIFIERS, parse_params
from titles.params import Params
from titles.tracking.provenance import flat

Settings = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _classifier(name: str) -> str:
    if name not in CLASSIFIERS:
        raise ValueError(f"must be one of {', '.join(CLASSIFIERS)}")
    return name


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figures(Strict):
    balanced_accuracy: Annotated[float, Field(ge=0, le=1)]
    loss: Annotated[float, Field(ge=0)]


class Case(Strict):
    """One experiment: the network it is about, the settings it changes, and published figures."""

    network: Annotated[str, AfterValidator(_classifier)]
    settings: Settings = {}
    published: Figures | None = None


class Plan(Strict):
    """A file of experiments. settings: of all of them; those of an experiment take precedence."""

    about: Annotated[str, Field(min_length=1)]
    published_on: str | None = None
    settings: Settings = {}
    experiments: Annotated[dict[Name, Case], Field(min_length=1)]


@dataclass(frozen=True)
class Wanted:
    """An experiment to run. overrides: what `dvc exp run -S` takes to get its parameters."""

    name: str
    params: Params
    overrides: list[str]


def read_plan(file: Path) -> Plan:
    """Read a file of experiments.

    Raises:
        ValueError: the file is missing, is not YAML, or breaks the schema; all problems are listed.
    """
    try:
        content = OmegaConf.load(StringIO(read_yaml_text(file)))
        return Plan.model_validate(OmegaConf.to_container(content))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: name a file such as experiments/course.yaml") from None
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in error.errors()]
    except (ValueError, OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        problems = [str(error)]  # OSError: the file holds a single value
    raise ValueError(f"{file} is not a file of experiments:\n  " + "\n  ".join(problems))


def wanted(plan: Plan, file: Path, base: Settings) -> list[Wanted]:
    """The experiments of a plan, over the parameters `base`.

    Raises:
        ValueError: settings break the schema of params.yaml.
    """
    found, problems = [], []
    for name, case in plan.experiments.items():
        settings = _merged(plan.settings, case.settings)
        try:
            params = parse_params(_merged(base, settings), f"{file}, {name},")
            found.append(Wanted(name, params, overrides(settings, params)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return found


def _merged(*layers: Settings) -> Settings:
    """Sections with those of later layers over them."""
    merged: Any = OmegaConf.to_container(OmegaConf.merge(*layers))
    return merged  # type: ignore[no-any-return]


def overrides(settings: Mapping[str, Any], params: Params) -> list[str]:
    """What `dvc exp run -S` takes for the keys of `settings`, with their values in `params`."""
    values = flat(params.model_dump(mode="json"))
    # JSON is valid in the grammar of overrides, where bare commas, spaces and quotes have a meaning.
    return [f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in flat(settings)]
