"""Raw files: the readers give back the generator's rows, and the bytes depend on the configuration alone."""

from __future__ import annotations

import gzip
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.data.sample_rows import assert_same_columns
from tfdlrm.config import DataConfig, SyntheticConfig
from tfdlrm.data import Dataset, open_dataset
from tfdlrm.data.columns import Columns
from tfdlrm.data.synth import write
from tfdlrm.data.synth.criteo_text import CriteoText, token
from tfdlrm.data.synth.rows import DAY, SyntheticRows
from tfdlrm.data.synth.write import write_synthetic
from tfdlrm.native import plain
from tfdlrm.schema import FeatureSpec
from tfdlrm.yaml_text import parse_yaml

CONFIG = SyntheticConfig(
    num_rows=3_000, num_dense=3, vocabulary_sizes=(50, 200_000, 7), missing_fraction=0.1, days=3, drift=0.1, seed=2
)
BAGS = replace(CONFIG, hotness=(1, 3, 4), hotness_distribution="uniform")


def columns_of(dataset: Dataset) -> Columns:
    return dataset.columns  # type: ignore[attr-defined]


def read(path: Path, file_format: str, **options: object) -> Dataset:
    schema = FeatureSpec.load(path.parent)
    return open_dataset(DataConfig(format=file_format, path=str(path), schema=schema, **options)).train


@pytest.mark.parametrize("native", [True, False])
def test_criteo_text_by_hand(native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of every line from the rows, one by one."""
    if not native:
        monkeypatch.setattr(plain, "functions", lambda: None)
    written = write_synthetic(CONFIG, tmp_path / "rows")
    assert written.files == (tmp_path / "rows" / "rows.tsv",)
    rows, empty = SyntheticRows(CONFIG).read(0, 3_000)
    assert empty is not None
    lines = written.files[0].read_text().split("\n")
    assert lines.pop() == ""
    assert len(lines) == written.num_rows == 3_000
    for number, line in enumerate(lines):
        label, *cells = line.split("\t")
        assert label == str(int(rows.labels[number, 0]))
        counts = [str(round(float(np.expm1(value)))) for value in rows.dense[number]]
        tokens = [token(int(id_), column, seed=2) for column, id_ in enumerate(rows.ids[number])]
        is_empty = [*empty.dense[number], *empty.categorical[number]]
        assert cells == ["" if nothing else cell for cell, nothing in zip(counts + tokens, is_empty, strict=True)]
    assert written.num_bytes == written.files[0].stat().st_size


def test_the_criteo_reader_gives_the_rows_back(tmp_path: Path) -> None:
    config = replace(CONFIG, missing_fraction=0.0)
    dataset = read(write_synthetic(config, tmp_path).files[0], "criteo")
    found, expected = columns_of(dataset), SyntheticRows(config).read(0, 3_000)[0]
    np.testing.assert_allclose(found.dense, expected.dense, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.labels)
    for column in range(3):  # ids are renamed in order of appearance, one to one
        pairs = np.unique(np.stack([found.ids[:, column], expected.ids[:, column]], axis=1), axis=0)
        assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))


def test_tokens() -> None:
    """Different in every column and seed, in no order, and never 0: an empty cell is 0."""
    tokens = [int(token(id_, 0, seed=1), 16) for id_ in range(2000)]
    assert len(set(tokens)) == 2000
    assert 0 not in tokens
    assert abs(np.corrcoef(tokens, np.arange(2000))[0, 1]) < 0.1
    assert token(2**32 - 1, 5, seed=9) == "00000000"  # no table has this id
    assert token(0, 0, seed=1) != token(0, 1, seed=1) != token(0, 1, seed=2)
    assert re.fullmatch("[0-9a-f]{8}", token(3, 3, seed=3))


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
@pytest.mark.parametrize("config", [CONFIG, BAGS], ids=["single ids", "bags"])
def test_tables_hold_the_rows(tmp_path: Path, file_format: write.FileFormat, config: SyntheticConfig) -> None:
    dataset = read(write_synthetic(config, tmp_path, file_format=file_format).files[0], file_format)
    found, expected = columns_of(dataset), SyntheticRows(config).read(0, 3_000)[0]
    np.testing.assert_allclose(found.dense, expected.dense, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.ids, expected.ids)
    for name, bags in expected.ragged.items():
        np.testing.assert_array_equal(found.ragged[name].values, bags.values)
        np.testing.assert_array_equal(found.ragged[name].row_splits, bags.row_splits)
    # text files have their keys as text
    probability = found.keys["teacher_probability"].astype(np.float64)
    np.testing.assert_allclose(probability, expected.keys["teacher_probability"], rtol=1e-6)
    np.testing.assert_array_equal(found.keys[DAY], expected.keys[DAY])


@pytest.mark.parametrize("file_format", ["criteo", "csv"])
def test_compressed_text_is_the_same_text(tmp_path: Path, file_format: write.FileFormat) -> None:
    plain = write_synthetic(CONFIG, tmp_path / "plain", file_format=file_format).files[0]
    packed = write_synthetic(CONFIG, tmp_path / "packed", file_format=file_format, compression="gz").files[0]
    assert packed.name == plain.name + ".gz"
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert_same_columns(columns_of(read(packed, file_format)), columns_of(read(plain, file_format)))


@pytest.mark.parametrize(
    ("file_format", "compression"), [("criteo", "none"), ("criteo", "gz"), ("csv", "none"), ("parquet", "none")]
)
def test_bytes_depend_on_the_configuration_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_format: write.FileFormat,
    compression: write.Compression,
) -> None:
    """Not on threads, nor on what was written before."""
    config = replace(CONFIG, num_rows=150_000)
    files = [
        write_synthetic(
            config, tmp_path / str(threads), file_format=file_format, compression=compression, num_threads=threads
        ).files[0]
        for threads in (1, 3)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    if file_format == "criteo" and compression == "none":
        monkeypatch.setattr(write._CriteoEncoder, "block_rows", 16_384)
        assert write_synthetic(config, tmp_path / "small blocks").files[0].read_bytes() == files[0].read_bytes()


def test_a_file_a_day(tmp_path: Path) -> None:
    whole = write_synthetic(CONFIG, tmp_path / "whole").files[0].read_bytes()
    written = write_synthetic(CONFIG, tmp_path / "days", file_per_day=True)
    assert [file.name for file in written.files] == ["day_0.tsv", "day_1.tsv", "day_2.tsv"]
    assert b"".join(file.read_bytes() for file in written.files) == whole
    tables = write_synthetic(CONFIG, tmp_path / "csv", file_format="csv", file_per_day=True)
    assert [set(pl.read_csv(file)["day"].to_list()) for file in tables.files] == [{0}, {1}, {2}]


def test_progress_counts_rows(tmp_path: Path) -> None:
    counts: list[int] = []
    write_synthetic(replace(CONFIG, num_rows=140_000), tmp_path, progress=counts.append)
    assert counts == [65_536, 131_072, 140_000]


def test_the_configuration_lies_beside(tmp_path: Path) -> None:
    write_synthetic(BAGS, tmp_path, file_format="csv")
    plain = parse_yaml((tmp_path / "synthetic.yaml").read_text(), "synthetic.yaml")
    assert SyntheticConfig.from_dict(plain) == BAGS


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    lines = CriteoText.lines

    def fail_later(self: CriteoText, *arguments: object) -> bytes:
        calls.append(1)
        if len(calls) > 2:
            raise OSError("no space left")
        return lines(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CriteoText, "lines", fail_later)
    with pytest.raises(OSError, match="no space left"):
        write_synthetic(replace(CONFIG, num_rows=400_000), tmp_path, num_threads=1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept_unless_told(tmp_path: Path) -> None:
    write_synthetic(CONFIG, tmp_path, file_per_day=True)
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"something already \(day_0\.tsv, .*or replace it \(--force\)"):
        write_synthetic(CONFIG, tmp_path)
    write_synthetic(CONFIG, tmp_path, replace=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "notes.txt",
        "rows.tsv",
        "schema.yaml",
        "synthetic.yaml",
    ]


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (BAGS, {}, "column 'cat_2' has hotness None. Write csv or parquet, or set hotness 1."),
        (replace(CONFIG, hotness=2), {}, "column 'cat_1' has hotness 2"),
        (
            replace(CONFIG, vocabulary_sizes=(2**32,)),
            {},
            "4294967295 tokens, and table 'cat_1' has 4294967296 ids",
        ),
        (CONFIG, {"file_format": "parquet", "compression": "gz"}, "compression='gz' is for text"),
        (CONFIG, {"file_format": "tsv"}, "file_format='tsv' is not known, did you mean 'csv'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, config: SyntheticConfig, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_synthetic(config, tmp_path / "rows", **options)
    assert not (tmp_path / "rows").exists()


def test_criteo_text_needs_neither_polars_nor_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, module in list(sys.modules.items()):
        if name.startswith("tfdlrm.data.") and (hasattr(module, "pl") or hasattr(module, "pa")):
            monkeypatch.delitem(sys.modules, name)
    assert write_synthetic(CONFIG, tmp_path / "text").num_rows == 3_000
    with pytest.raises(ImportError, match=re.escape("pip install 'tfdlrm[data]'")):
        write_synthetic(CONFIG, tmp_path / "table", file_format="parquet")
    assert not (tmp_path / "table").exists()
