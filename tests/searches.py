"""A space, and studies of it, for tests of searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from titles.experiments.search.space import Space
from titles.experiments.search.space_file import read_space
from titles.experiments.search.study import Study
from titles.models.registry import parse_params

ROOT = Path(__file__).parent.parent
BASE: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
COMMIT = "a" * 40


def space(text: str, folder: Path) -> Space:
    file = folder / "space.yaml"
    file.write_text(text, encoding="utf-8")
    return read_space(file, BASE, parse_params(BASE))


GOOD = """
network: mlp
space:
  mlp.learning_rate: {low: 1e-3, high: 1e-2, log: true}
  mlp.dropout: {low: 0, high: 0.75, step: 0.25}
  mlp.leading_words: {low: 0, high: 4}
  mlp.hidden_layers: {choices: [[512], [256, 128]]}
  mlp.freeze_embeddings: {choices: [false, true, partial]}
  shape: {choices: [{mlp.subword_min: 2, mlp.subword_max: 4}, {mlp: {subword_min: 3, subword_max: 5}}]}
  mlp.schedule: {choices: [constant, one_cycle]}
  mlp.weight_decay: {low: 1e-6, high: 1e-3, log: true, when: {mlp.schedule: one_cycle}}
"""


def study(folder: Path, text: str = GOOD, commit: str = COMMIT, file: str = "s.db") -> Study:
    return Study(folder / file, "s", space(text, folder), commit)
