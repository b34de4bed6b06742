"""The network that CONTRIBUTING.md adds as an example fulfils the contract of networks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from documents import read, sections

pytest.importorskip("titles.models.parts.network")

(RECIPE,) = (one for one in sections(read("CONTRIBUTING.md")) if one.title == "Add a network")
(MODEL,) = (text for language, text in RECIPE.blocks if language == "python" and "(Network)" in text)
(PARAMS,) = (text for language, text in RECIPE.blocks if language == "yaml")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "example_network.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("example_network").TitleGRU


def test_its_parameters_are_those_of_the_section(example: Any) -> None:
    section = example.Section.model_validate(yaml.safe_load(PARAMS)["gru"])
    assert section.architecture(12_000) == {"units": 256, "dropout": 0.3}


def test_padding_does_not_change_its_logits(example: Any) -> None:
    from titles.models.parts.embedding import WordEmbedding

    torch.manual_seed(0)
    embedding = WordEmbedding(torch.randn(12, 5), torch.ones(12, dtype=torch.bool), False)
    network = example(embedding, 4, units=7, dropout=0.3).eval()
    vectors_BLD = torch.randn(3, 6, 5)
    vectors_BLD[1, 2:] = 0
    is_token_BL = vectors_BLD.any(dim=2)
    logits_BC = network.logits(vectors_BLD, is_token_BL)
    assert logits_BC.shape == (3, 4)
    torch.testing.assert_close(
        logits_BC[1:2], network.logits(vectors_BLD[1:2, :2], is_token_BL[1:2, :2])
    )
