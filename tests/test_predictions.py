import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from networks import CATEGORIES, LABEL_NAMES, TITLES, encoded, vocabulary
from titles.data.outcomes import Outcomes
from titles.evaluation import predictions
from titles.models.registry import CLASSIFIERS

N = len(TITLES)


def outcomes(seed):
    random = np.random.default_rng(seed)
    predicted_N = random.integers(0, len(LABEL_NAMES), N)
    rank_N = np.where(predicted_N == CATEGORIES, 0, random.integers(1, 4, N))
    return Outcomes(np.array(CATEGORIES), predicted_N, random.random(N), rank_N, random.random(N) * 5)


MODELS = {name: outcomes(seed) for seed, name in enumerate(CLASSIFIERS)}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "predictions/test.parquet"
    predictions.write(path, encoded(), vocabulary(), LABEL_NAMES, MODELS)
    return path


def test_titles_are_spelt_with_known_and_unknown_words(written):
    table = pq.read_table(written)
    assert table["title"].to_pylist()[:5] == [
        "word2 word3 word4",
        "word5",
        "word8 word2 word9 word10 word3 word6",
        "word99 word7",  # -1 is the first of the unknown words
        "word4 word4 word8 word5",
    ]
    assert table["line"].to_pylist() == list(range(2, N + 2))
    assert table["category"].to_pylist() == [LABEL_NAMES[code] for code in CATEGORIES]


def test_every_model_has_its_own_columns(written):
    table = pq.read_table(written)
    measures = ("", "_confidence", "_rank", "_loss")
    columns = [f"{name}{measure}" for name in CLASSIFIERS for measure in measures]
    assert table.column_names == ["key", "file", "line", "title", "category", *columns]
    for name, model in MODELS.items():
        assert table[name].to_pylist() == [LABEL_NAMES[code] for code in model.predicted_N]
        assert str(table[name].type).startswith("dictionary")
        assert str(table[f"{name}_confidence"].type) == str(table[f"{name}_loss"].type) == "float"


def test_what_was_written_is_read(written):
    found = predictions.read(io.BytesIO(written.read_bytes()))
    assert len(found) == N
    assert found.keys_N.tolist() == list(range(77, N + 77))
    assert found.files == [["one.csv", "two.csv"][row % 2] for row in range(N)]
    assert found.lines_N.tolist() == list(range(2, N + 2))
    for name, model in MODELS.items():
        read = found.outcomes[name]
        for codes, wanted in (
            (read.labels_N, model.labels_N),
            (read.predicted_N, model.predicted_N),
        ):
            assert [found.labels[code] for code in codes] == [LABEL_NAMES[code] for code in wanted]
        assert read.rank_N.tolist() == model.rank_N.tolist()
        assert read.confidence_N == pytest.approx(model.confidence_N, rel=1e-6)
        assert read.loss_N == pytest.approx(model.loss_N, rel=1e-6)


def test_the_same_predictions_are_the_same_bytes_and_no_pandas_is_in_them(written, tmp_path):
    again = tmp_path / "again/other.parquet"
    predictions.write(again, encoded(), vocabulary(), LABEL_NAMES, MODELS)
    assert again.read_bytes() == written.read_bytes()
    assert list(pq.read_schema(written).metadata or {}) == []
    assert pq.ParquetFile(written).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_write_that_fails_leaves_the_old_file(written):
    before = written.read_bytes()
    short = {"cnn": Outcomes(*(values[:3] for values in vars(MODELS["cnn"]).values()))}
    with pytest.raises(Exception, match="length"):
        predictions.write(written, encoded(), vocabulary(), LABEL_NAMES, short)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.parent.iterdir()] == ["predictions"]


def test_a_damaged_file_is_refused(written):
    with pytest.raises(ValueError, match="not a complete Parquet file"):
        predictions.read(io.BytesIO(written.read_bytes()[:-20]))


def test_a_file_without_a_model_is_refused(written):
    stream = io.BytesIO()
    pq.write_table(pq.read_table(written).drop_columns(["mlp", "average_loss"]), stream)
    stream.seek(0)
    with pytest.raises(ValueError, match=r"columns are missing: average_loss, mlp$"):
        predictions.read(stream)
