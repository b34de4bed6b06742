"""Run the pipeline's stages in a separate folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

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
    """A folder in which the stages run; finished stages are not repeated while `key` is the same."""

    def __init__(self, folder: Path, key: str, seed: int) -> None:
        self.folder, self._key, self._seed = folder, key, seed
        self._state = folder / "stages.json"

    def costs(self) -> dict[str, Cost]:
        """The costs of the finished stages."""
        if not self._state.exists():
            return {}
        state = json.loads(self._state.read_text(encoding="utf-8"))
        return {k: Cost(*v) for k, v in state["costs"].items()} if state["key"] == self._key else {}

    def begin(self, source: Callable[[Path], Path]) -> None:
        """Empty the folder, unless it is in use under the same key.

        Args:
            source: given the folder, returns the file of listings.
        """
        if self.costs():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        pretrained = self.folder / NO_PRETRAINED
        pretrained.parent.mkdir(parents=True)
        pretrained.touch()
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        params["seed"] = params["prepare"]["split_seed"] = self._seed
        params["prepare"]["source"] = str(source(self.folder).resolve())
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    @property
    def source(self) -> Path:
        params = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        return Path(params["prepare"]["source"])

    def run(self, stage: str) -> Cost:
        done = self.costs()
        if stage not in done:
            done[stage] = measured([sys.executable, "-m", f"titles.stages.{stage}"], self.folder)
            write_json(self._state, {"key": self._key, "costs": done})
        return done[stage]

    def curve(self, network: str) -> list[float]:
        """Balanced accuracy on validation by epoch."""
        text = (self.folder / "plots" / f"{network}.json").read_text(encoding="utf-8")
        return [record["validation_balanced_accuracy"] for record in json.loads(text)]
