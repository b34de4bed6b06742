"""The schema of params.yaml and its reader; models/registry.py adds the sections of the networks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

from titles.data import auto
from titles.data.contract import MOST_BUCKETS, MOST_LETTERS, NO_CORRECTIONS, NO_PRETRAINED, NO_REFERENCE
from titles.data.documents import read_bytes, read_yaml
from titles.data.problems import described


def _number(value: object) -> object:
    # YAML 1.1 reads 1e-3 as a string; people write it all the same.
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(values)) != len(values):
        raise ValueError("holds a value twice")
    return values


Number = Annotated[float, BeforeValidator(_number)]
# Every number has a largest value, far above any use, so that a slip of the hand is refused at once: it
# would hang or fill the memory hours later. A type or a field can have a lower one.
MOST = 1_000_000
MOST_ROWS = 1_000_000_000
MOST_WORDS = 10_000  # of a title
MOST_UNITS = 65_536  # of a layer
MOST_DIMENSIONS = 10_000
MOST_EPOCHS = 100_000
MOST_THREADS = 1024
MOST_LAYERS = 64  # also lengths of filters, and heads
Positive = Annotated[int, Field(ge=1, le=MOST)]
Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
Words = Annotated[int, Field(ge=1, le=MOST_WORDS)]
Units = Annotated[int, Field(ge=1, le=MOST_UNITS)]
Layers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
Letters = Annotated[int, Field(ge=1, le=MOST_LETTERS)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Distance = Annotated[Number, Field(ge=0, le=1)]
Sizes = Annotated[
    tuple[Units, ...], BeforeValidator(_sequence), Field(min_length=1, max_length=MOST_LAYERS)
]


def _freeze(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):  # 1 would pass for true
        raise ValueError("must be true, false or partial")
    return value


Freeze = Annotated[Literal[True, False, "partial"], BeforeValidator(_freeze)]
SavedWeights = Literal["int8", "float32"]


def _place(value: str) -> str:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError(
            "has letters that this locale has not in names of files: set PYTHONUTF8=1"
        ) from None
    if "\0" in value:
        raise ValueError("holds a null character, which no file name has")
    return value


# A file or folder, relative to the project.
Place = Annotated[str, Field(min_length=1), AfterValidator(_place)]
Fraction = Annotated[Number, Field(gt=0, le=0.4)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

# A number, or what follows from the rows of train.
Passes = Annotated[Epochs | Literal["auto"], BeforeValidator(partial(auto.or_whole, MOST_EPOCHS))]
BatchSize = Annotated[Positive | Literal["auto"], BeforeValidator(partial(auto.or_whole, MOST))]
Heads = Annotated[Layers | Literal["auto"], BeforeValidator(partial(auto.or_whole, MOST_LAYERS))]
# The last validator comes first: a number as text is one.
Dropout = Annotated[Share | Literal["auto"], BeforeValidator(auto.or_share), BeforeValidator(_number)]


@dataclass(frozen=True)
class Concerns:
    """Marks a parameter that is not meant to change results: `only` speed, though sums round
    differently and several workers of `embed` update vectors in any order; or only messages."""

    only: Literal["speed", "messages"]


Limit = Annotated[Distance, Concerns("messages")]


def _subwords_in_order(subword_max: int, info: ValidationInfo) -> int:
    if subword_max < info.data.get("subword_min", 1):
        raise ValueError(f"must be at least subword_min = {info.data['subword_min']}")
    return subword_max


# Pairs are checked field by field, not by a check of the whole section, which pydantic skips as soon
# as one field is wrong: all problems are reported at once.
class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def without_effect(self) -> dict[str, str]:
        """Parameters that other values of this section leave without effect, each with the reason."""
        return {}


class Compute(_Section):
    device: Annotated[Literal["auto", "cpu", "cuda"], Concerns("speed")]
    threads: Annotated[Threads, Concerns("speed")]
    portable: Annotated[bool, Concerns("speed")]


class Text(_Section):
    """How a title becomes words; travels with a model, since prediction must do the same."""

    strip_accents: bool
    digits: Literal["keep", "zero", "drop"]
    drop_seller_noise: bool
    max_title_chars: Positive
    max_words: Words

    @staticmethod
    def read(path: Path) -> Text:
        """Read what `prepare` wrote beside its splits; raises ValueError if it is missing or damaged."""
        try:
            return Text.model_validate_json(read_bytes(path))
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: run `dvc repro`, or `dvc pull`") from None
        except ValidationError as error:
            raise ValueError(f"{path} is damaged: {error}") from None


class Prepare(Text):
    source: Place
    language: Literal["all", "spanish", "portuguese"]
    # The card of a run without them is the one that it had before they existed.
    corrections: Place = NO_CORRECTIONS
    holdout_quality: Literal["reliable", "any"]
    validation_fraction: Fraction
    calibration_share: Share
    test_fraction: Fraction
    split_seed: Seed
    min_rows: Rows
    min_count: Rows
    max_vocabulary: Annotated[int, Field(ge=1, le=10 * MOST)]
    reference: Place
    drift_categories: Limit
    drift_languages: Limit
    drift_unknown_words: Limit
    drift_length: Annotated[Number, Field(ge=0, le=MOST_WORDS), Concerns("messages")]
    drift_rejected: Limit

    @property
    def text(self) -> Text:
        return Text(**self.model_dump(include=set(Text.model_fields)))

    def without_effect(self) -> dict[str, str]:
        if self.reference != NO_REFERENCE:
            return {}
        limits = [name for name in Prepare.model_fields if name.startswith("drift_")]
        return dict.fromkeys(limits, "reference is none")


class Embed(_Section):
    method: Literal["word2vec", "fasttext", "ppmi", "encoder", "pretrained"]
    pretrained: Place
    dimension: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS)]
    epochs: Epochs
    window: Annotated[int, Field(ge=1, le=MOST_WORDS)]
    negative: Annotated[int, Field(ge=1, le=1000)]
    subword_min: Letters
    subword_max: Letters
    workers: Annotated[Threads, Concerns("speed")]

    @field_validator("pretrained")
    @classmethod
    def _file_fits_method(cls, pretrained: str, info: ValidationInfo) -> str:
        method = info.data.get("method", "pretrained" if pretrained != NO_PRETRAINED else None)
        if method == "pretrained" and pretrained == NO_PRETRAINED:
            raise ValueError("must name a word2vec file when embed.method is pretrained")
        if method not in (None, "pretrained") and pretrained != NO_PRETRAINED:
            raise ValueError(f"would be ignored: embed.method is {method}, not pretrained")
        return pretrained

    _in_order = field_validator("subword_max")(_subwords_in_order)

    def without_effect(self) -> dict[str, str]:
        names = [] if self.method == "fasttext" else ["subword_min", "subword_max"]
        if self.method not in ("word2vec", "fasttext"):
            names += ["epochs", "negative"]
        if self.method == "pretrained":
            names += ["window", "workers"]
        return dict.fromkeys(names, f"method is {self.method}")


class Training(_Section):
    """Parameters of every network; the section of a network adds its own.

    most_dropout: what `dropout: auto` is for few titles.
    """

    most_dropout: ClassVar[float] = 0.3

    dropout: Dropout
    word_dropout: Share
    heads: Heads
    freeze_embeddings: Freeze
    subword_buckets: Annotated[int, Field(ge=0, le=MOST_BUCKETS)]
    subword_min: Letters
    subword_max: Letters
    epochs: Passes
    batch_size: BatchSize
    min_steps: Rows | None
    learning_rate: Annotated[Number, Field(gt=0, le=1000)]
    schedule: Literal["constant", "one_cycle"]
    weight_decay: Annotated[Number, Field(ge=0, le=1000)]
    logit_adjustment: Annotated[Number, Field(ge=0, le=1000)]
    label_smoothing: Share
    gce_q: Annotated[Number, Field(ge=0, le=1)]
    set_aside_below: Share
    class_weighting: Literal["none", "sqrt", "balanced"]
    patience: Annotated[int, Field(ge=0, le=MOST_EPOCHS)]
    precision: Literal["float32", "bfloat16"]
    saved_weights: SavedWeights

    _in_order = field_validator("subword_max")(_subwords_in_order)

    @field_validator("min_steps")
    @classmethod
    def _beside_auto_only(cls, min_steps: int | None, info: ValidationInfo) -> int | None:
        batch_size = info.data.get("batch_size")
        if batch_size == "auto" and min_steps is None:
            raise ValueError(
                "must be a number where batch_size is auto: -S {section}.min_steps=100, for example"
            )
        if isinstance(batch_size, int) and min_steps is not None:
            raise ValueError(
                f"must be null where batch_size is a number: -S {{section}}.batch_size={batch_size} -S "
                f"{{section}}.min_steps=null trains in batches of that size, -S {{section}}.batch_size="
                f"auto -S {{section}}.min_steps={min_steps} in smaller ones if train is small"
            )
        return min_steps

    def without_effect(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if not self.subword_buckets:
            found |= dict.fromkeys(("subword_min", "subword_max"), "subword_buckets is 0")
        return found

    def titles_per_step(self, rows: int) -> int:
        """The size of the batches, except a smaller last one, in an epoch over so many rows."""
        if self.batch_size == "auto":
            assert self.min_steps is not None
            return auto.batch_size(rows, self.min_steps)
        return min(self.batch_size, rows)

    def passes(self, rows: int) -> int:
        """The epochs of a training on so many rows, unless it stops early."""
        return auto.epochs(rows) if self.epochs == "auto" else self.epochs

    def heads_of(self, units: int, unreliable: float) -> int:
        """Heads of a last layer that reads so many units.

        Args:
            unreliable: share of the titles of train whose labels are said to be unreliable.
        """
        return min(auto.heads(unreliable), units) if self.heads == "auto" else self.heads

    def architecture(self, rows: int) -> dict[str, Any]:
        """Keyword arguments of a network for so many rows of train: its own parameters and dropout."""
        own = self.model_dump(mode="json", exclude=set(Training.model_fields))
        found = auto.dropout(rows, self.most_dropout) if self.dropout == "auto" else self.dropout
        return own | {"dropout": found}

    @classmethod
    def check_architecture(cls, given: object) -> None:
        """Raise ValueError unless values, such as those of a saved model, can be an `architecture`."""
        shared = Training.model_fields.keys()
        fields: dict[str, Any] = {
            name: (field.annotation, field)
            for name, field in cls.model_fields.items()
            if name not in shared
        } | {"dropout": (Share, ...)}
        try:
            create_model("Architecture", __base__=_Section, **fields).model_validate(given)
        except ValidationError as error:
            raise ValueError("; ".join(described(error, cls, {}))) from None

    def beyond_titles(self, longest: int) -> dict[str, str]:
        """Parameters without effect where no title has more than `longest` words, each with the
        reason."""
        return {}

    def check_titles(self, max_words: int) -> None:
        """Raise ValueError if the network cannot read titles of at most `max_words` words."""


class Evaluate(_Section):
    bootstrap_samples: Annotated[int, Field(ge=100, le=MOST)]
    calibration_bins: Annotated[int, Field(ge=2, le=10_000)]
    target_precision: Annotated[Number, Field(gt=0, lt=1)]
    confused_categories: Annotated[int, Field(ge=2, le=10_000)]


class Params(_Section):
    """The parameters that belong to no network; `schema` adds a section for each network."""

    seed: Seed
    compute: Compute
    prepare: Prepare
    embed: Embed
    evaluate: Evaluate

    @field_validator("*")
    @classmethod
    def _network_fits_titles(cls, value: Any, info: ValidationInfo) -> Any:
        prepare = info.data.get("prepare")
        if isinstance(value, Training) and prepare is not None:
            value.check_titles(prepare.max_words)
        return value

    def network(self, name: str) -> Training:
        """The section of a network."""
        section: Training = getattr(self, name)
        return section


def schema(sections: Mapping[str, type[Training]]) -> type[Params]:
    """Parameters with a section for each network, by name."""
    fields: dict[str, Any] = {name: (section, ...) for name, section in sections.items()}
    return create_model("Params", __base__=Params, **fields)


# Names that parameters had before.
RENAMED = {"robustness": "gce_q", "wanted_precision": "target_precision"}


def read(path: Path, form: type[Params]) -> Params:
    """Read and check a file of parameters.

    Raises:
        ValueError: the file is missing, is not a YAML mapping, or breaks the schema; the message lists
            every problem with its dotted name.
    """
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run from the project's folder") from None
    except ValueError as error:
        raise ValueError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold sections such as prepare: and cnn:")
    return parse(values, str(path), form)


def parse(values: dict[str, Any], name: str, form: type[Params]) -> Params:
    """Check parameters that are already a mapping; `name` opens the error message.

    Raises:
        ValueError: as for `read`.
    """
    try:
        return form.model_validate(values)
    except ValidationError as error:
        problems, count = described(error, form, RENAMED), error.error_count()
    raise ValueError(f"{name} has {count} problem{'s' * (count > 1)}:\n  " + "\n  ".join(problems))
