"""Run the pipeline's stages in a separate folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from measure import Cost, measured

from titles.data.contract import NO_PRETRAINED
from titles.data.files import write_json

NETWORKS = ("cnn", "mlp")
# The stages that each classifier needs.
STAGES = {
    "cnn": ("prepare", "embed", "train_cnn"),
    "mlp": ("prepare", "embed", "train_mlp"),
    "average": ("prepare", "embed", "train_cnn", "train_mlp"),
}


class Workspace:
    """A folder in which the stages run; finished work is not repeated while `key` is the same.

    Args:
        settings: sections of params.yaml that are changed.
    """

    def __init__(
        self, folder: Path, key: str, seed: int, settings: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.folder, self._key, self._seed = folder, key, seed
        self._settings = settings or {}
        self._state = folder / "stages.json"

    def costs(self) -> dict[str, Cost]:
        """The costs of the finished stages."""
        return self._read("costs")

    def _read(self, kind: str) -> dict[str, Cost]:
        if not self._state.exists():
            return {}
        state = json.loads(self._state.read_text(encoding="utf-8"))
        if state["key"] != self._key:
            return {}
        return {k: Cost(*v) for k, v in state.get(kind, {}).items()}

    def key(self) -> str | None:
        """The key under which the folder is in use."""
        if not self._state.exists():
            return None
        found: str = json.loads(self._state.read_text(encoding="utf-8"))["key"]
        return found

    def begin(self, source: Callable[[Path], Path]) -> None:
        """Empty the folder, unless it is in use under the same key.

        Args:
            source: given the folder, returns the file of listings.
        """
        if self.key() == self._key:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        pretrained = self.folder / NO_PRETRAINED
        pretrained.parent.mkdir(parents=True)
        pretrained.touch()
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        for section, values in self._settings.items():
            params[section] |= values
        params["seed"] = params["prepare"]["split_seed"] = self._seed
        params["prepare"]["source"] = str(source(self.folder).resolve())
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        self._write({}, {})

    def _write(self, costs: Mapping[str, Cost], begun: Mapping[str, Cost]) -> None:
        write_json(self._state, {"key": self._key, "costs": dict(costs), "begun": dict(begun)})

    @property
    def source(self) -> Path:
        params = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        return Path(params["prepare"]["source"])

    def run(self, stage: str, command: Sequence[str] | None = None) -> Cost:
        """Run a stage, or other work under the name of `stage`; one that was cut off counts from its
        first start."""
        done, begun = self._read("costs"), self._read("begun")
        if stage not in done:
            before = begun.get(stage, Cost())

            def note(cost: Cost) -> None:
                self._write(done, begun | {stage: before.then(cost)})

            command = command or [sys.executable, "-m", f"titles.stages.{stage}"]
            done[stage] = before.then(measured(command, self.folder, note))
            self._write(done, {k: v for k, v in begun.items() if k != stage})
        return done[stage]

    def curve(self, network: str) -> list[float]:
        """Balanced accuracy on validation by epoch."""
        text = (self.folder / "plots" / f"{network}.json").read_text(encoding="utf-8")
        return [record["validation_balanced_accuracy"] for record in json.loads(text)]
