"""Vocabularies and statistics: fitted on the training part, saved as plain text, and the same when loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.config import DataConfig
from tfdlrm.data import Preprocessing, open_dataset
from tfdlrm.data.transforms import transform_dense
from tfdlrm.data.vocabulary import Vocabulary
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

WORDS = st.lists(st.text(alphabet='ab\\\n\r\tné," ', max_size=5), max_size=20)
NUMBERS = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 20), max_size=20)


@given(WORDS | NUMBERS, st.booleans())
def test_a_saved_vocabulary_is_the_same(tmp_path_factory: pytest.TempPathFactory, tokens: list, has_oov: bool) -> None:
    is_hex = bool(tokens) and isinstance(tokens[0], int)
    distinct = list(dict.fromkeys(tokens))
    vocabulary = Vocabulary(pl.Series(distinct, dtype=pl.Int64 if is_hex else pl.String), has_oov=has_oov)
    file = tmp_path_factory.mktemp("vocabulary") / "words.txt"
    vocabulary.save(file)
    assert file.read_bytes().count(b"\n") == len(vocabulary.values)
    loaded = Vocabulary.load(file, encoding="hex" if is_hex else "vocabulary", has_oov=has_oov)
    assert loaded.values.to_list() == vocabulary.values.to_list()
    assert loaded.values.dtype == vocabulary.values.dtype
    assert loaded.size == vocabulary.size


def test_a_vocabulary_that_was_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "city.txt"
    file.write_text("Rome\nOslo\nRome\n")
    with pytest.raises(ValueError, match=r"city\.txt, line 3: the value 'Rome' occurs twice"):
        Vocabulary.load(file, encoding="vocabulary", has_oov=True)
    with pytest.raises(ValueError, match=r"city\.txt, line 1: 'Rome' is not a hex number"):
        Vocabulary.load(file, encoding="hex", has_oov=False)


def _open(tmp_path: Path, spec: FeatureSpec, text: str, **options: object) -> Preprocessing:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    return open_dataset(DataConfig(format="csv", path=str(path), schema=spec, **options)).preprocessing


WORD = CategoricalColumn(name="word", encoding="vocabulary", id_policy="oov")


def test_saved_files_are_plain_text(tmp_path: Path) -> None:
    spec = FeatureSpec(
        labels=("y",),
        dense=(DenseColumn(name="age", transform="standardize"),),
        categorical=(WORD, CategoricalColumn(name="a/b", encoding="hex")),
    )
    fitted = _open(tmp_path, spec, "y,age,word,a/b\n1,10,x,ff\n0,20,y,a\n1,30,x,ff\n", id_modulo=100)
    assert fitted.spec.dense[0].mean == 20.0
    assert fitted.spec.dense[0].std == pytest.approx(np.std([10, 20, 30]), rel=1e-15)
    fitted.save(tmp_path / "saved")
    vocabularies = tmp_path / "saved" / "vocabularies"
    assert (vocabularies / "word.txt").read_text() == "x\ny\n"
    assert (vocabularies / "a%2Fb.txt").read_text() == "00000037\n0000000a\n"  # 255 modulo 100 is 55
    loaded = Preprocessing.load(tmp_path / "saved")
    assert loaded.spec == fitted.spec
    assert loaded.id_modulo == 100
    with (vocabularies / "word.txt").open("a") as stream:
        stream.write("z\n")
    with pytest.raises(ValueError, match=r"word\.txt: 3 values where 2 were saved"):
        Preprocessing.load(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="no preprocessing there"):
        Preprocessing.load(tmp_path)


def test_columns_of_a_shared_table_share_a_vocabulary_by_rows_first(tmp_path: Path) -> None:
    spec = FeatureSpec(
        labels=("y",),
        categorical=(
            CategoricalColumn(name="word", encoding="vocabulary", table="words"),
            CategoricalColumn(name="bag", encoding="vocabulary", table="words", hotness=None, id_policy="oov"),
        ),
    )
    fitted = _open(tmp_path, spec, "y,word,bag\n1,a,b c\n0,d,a\n1,c,e e\n")
    assert fitted.vocabularies["words"].values.to_list() == ["a", "b", "c", "d", "e"]
    assert fitted.spec.vocabulary_sizes["words"] == 6  # and an out-of-vocabulary row, which one column asked for


@pytest.mark.parametrize(
    ("columns", "sizes", "reason"),
    [
        ((WORD,), {"word": 2}, "vocabulary_sizes gives 2 rows, and the training part needs 3"),
        (
            (WORD, CategoricalColumn(name="code", encoding="hex", table="word")),
            {},
            r"shared by columns of different encodings: word \(vocabulary\), code \(hex\)",
        ),
        ((CategoricalColumn(name="word", encoding="hash"),), {}, "does not tell how many rows it needs"),
        ((CategoricalColumn(name="code", id_policy="modulo"),), {}, "does not tell how many rows it needs"),
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, columns: tuple, sizes: dict[str, int], reason: str) -> None:
    spec = FeatureSpec(labels=("y",), categorical=columns, vocabulary_sizes=sizes)
    names = ",".join(column.name for column in columns)
    row = ",".join({"word": "{word}", "code": "7"}[column.name] for column in columns)
    text = f"y,{names}\n" + "".join(f"1,{row.format(word=word)}\n" for word in ("x", "y", "x"))
    with pytest.raises(ValueError, match=reason):
        _open(tmp_path, spec, text)


def test_sizes_of_integer_tables_are_counted_or_kept(tmp_path: Path) -> None:
    spec = FeatureSpec(
        labels=("y",),
        categorical=(
            CategoricalColumn(name="a"),
            CategoricalColumn(name="b", table="shared"),
            CategoricalColumn(name="c", table="shared"),
            CategoricalColumn(name="d"),
        ),
        vocabulary_sizes={"d": 100},
    )
    fitted = _open(tmp_path, spec, "y,a,b,c,d\n1,3,9,2,1\n0,0,1,11,2\n")
    assert fitted.spec.vocabulary_sizes == {"a": 4, "shared": 12, "d": 100}


def test_given_statistics_are_kept(tmp_path: Path) -> None:
    spec = FeatureSpec(labels=("y",), dense=(DenseColumn(name="x", transform="standardize", mean=1.0, std=2.0),))
    assert _open(tmp_path, spec, "y,x\n1,5\n0,9\n").spec == spec
    constant = FeatureSpec(labels=("y",), dense=(DenseColumn(name="x", transform="standardize"),))
    column = _open(tmp_path, constant, "y,x\n1,5\n0,5\n").spec.dense[0]
    assert (column.mean, column.std) == (5.0, 1.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_transforms(values: list[float]) -> None:
    x = np.array(values)
    log = transform_dense(DenseColumn(name="x", transform="log1p"), x)
    np.testing.assert_array_equal(log, np.log(np.maximum(x, 0).astype(np.float32) + np.float32(1)))
    clipped = transform_dense(DenseColumn(name="x", transform="clip", minimum=-5.0), x)
    np.testing.assert_array_equal(clipped, np.maximum(x, -5.0).astype(np.float32))
    scaled = transform_dense(DenseColumn(name="x", transform="standardize", mean=3.0, std=2.0), x)
    as_served = x.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(scaled, ((as_served - 3.0) / 2.0).astype(np.float32))
    np.testing.assert_array_equal(transform_dense(DenseColumn(name="x"), x), x.astype(np.float32))
    for result in (log, clipped, scaled):
        assert result.dtype == np.float32


def test_standardize_must_be_fitted() -> None:
    with pytest.raises(ValueError, match="'standardize' has no mean and std"):
        transform_dense(DenseColumn(name="x", transform="standardize"), np.zeros(2))
