"""Examples of the demo are titles of the data that its networks learnt from."""

import shutil
from pathlib import Path

import pytest

from networks import LABEL_NAMES
from prepared_examples import SOURCE, write_examples
from saved_models import write_models
from titles.data.contract import LABELS, VOCABULARY
from titles.models.parts import saved
from titles.models.registry import NETWORKS
from titles.serve.demo.examples import NONE, Examples, examples

TITLES = ["Word5 WORD3 Red", "One two", "word2, word3 & Blue!", "Ação word4 Green", "word7 word7 word7"]
LANGUAGES = ["spanish", "spanish", "spanish", "portuguese", "unspecified"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_models(tmp_path / "models")
    write_examples(tmp_path, TITLES, LANGUAGES)
    return tmp_path


def found(project: Path, models: str = "models") -> Examples:
    return examples(project / models, saved.read(project / models / "mlp", NETWORKS))


def test_titles_stand_as_in_the_source_in_turns_by_language(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # "One two" is too short; the last is in the category of the first.
    assert found(project) == Examples([TITLES[0], TITLES[3], TITLES[2]], ["spanish", "portuguese"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lost", [SOURCE, "params.yaml"])
def test_without_the_source_their_words_stand_there(project: Path, lost: str) -> None:
    (project / lost).unlink()
    assert found(project).titles == ["word5 word3 red", "ação word4 green", "word2 word3 blue"]


def test_a_title_that_has_moved_in_the_source_is_shown_by_its_words(project: Path) -> None:
    lines = (project / SOURCE).read_text(encoding="utf-8").splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    (project / SOURCE).write_text("\n".join(lines), encoding="utf-8")
    assert found(project).titles == ["word5 word3 red", TITLES[3], TITLES[2]]


def test_a_catalogue_of_unknown_language_names_none(tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    titles = [f"word{n} a b" for n in range(2, 8)]
    write_examples(tmp_path, titles, ["unspecified"] * len(titles))
    assert found(tmp_path) == Examples(titles[: min(4, len(LABEL_NAMES))], [])


def test_a_test_split_without_a_usual_title_has_no_examples(tmp_path: Path) -> None:
    write_models(tmp_path / "models")
    write_examples(tmp_path, ["word5", "word2 " * 9, "?"], ["spanish"] * 3)
    assert found(tmp_path) == Examples([], ["spanish"])


def test_models_alone_and_data_of_others_have_none(project: Path) -> None:
    shutil.copytree(project / "models", project / "alone" / "models")
    assert found(project / "alone") == NONE
    for file in (LABELS, VOCABULARY):
        kept = (project / file).read_bytes()
        text = kept.decode().replace("EGGS", "FISH").replace("word2", "word77")
        (project / file).write_text(text, encoding="utf-8")
        assert found(project) == NONE
        (project / file).write_bytes(kept)
    assert found(project) != NONE
    (project / "data/prepared/test/ends.npy").write_bytes(b"damaged")
    assert found(project) == NONE
