"""Parquet and Arrow files that are damaged, cut off, or of types that cannot be read."""

from __future__ import annotations

import datetime
import decimal
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from tests.data import sample_rows as sample
from tfdlrm.config.data import DataConfig
from tfdlrm.data.inspect.label_rates import count_typed_rows
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.typed import TypedSource, to_polars
from tfdlrm.schema import DenseColumn, FeatureSpec


def parquet_bytes(path: Path, cells: object, **options: Any) -> bytes:
    pq.write_table(pa.table({"item": cells}), path, compression="none", use_dictionary=False, **options)
    return path.read_bytes()


def read_parquet(path: Path) -> list[object]:
    source = TypedSource(path, "parquet")
    assert len(source.column_names()) == 1
    assert count_typed_rows(path, "parquet") >= 0
    return [cell for block in source.blocks() for cell in block.frame.to_series().to_list()]


FORTY = pa.array([k / 2 for k in range(40)])


@pytest.mark.parametrize(
    ("cells", "before", "after", "says"),
    [
        # a page of -29 values instead of 40: polars asks for 2^61 bytes and ends the process
        (FORTY, b",\x15P", b",\x159", "negative number of values"),
        (FORTY, b"PAR1", b"PAR2", "magic bytes"),
        (pa.array(["ab"] * 40), b"\x02\0\0\0ab", b"\x02\0\0\0a\xff", "UTF8"),
        (pa.array(["ab"] * 40), b"\x02\0\0\0ab", b"\xff\xff\xff\x7fab", "."),
    ],
)
def test_a_damaged_parquet_file(tmp_path: Path, cells: pa.Array, before: bytes, after: bytes, says: str) -> None:
    path = tmp_path / "rows.parquet"
    data = parquet_bytes(path, cells)
    assert read_parquet(path) == cells.to_pylist()
    assert before in data
    path.write_bytes(after.join(data.rsplit(before, 1) if before == b"PAR1" else data.split(before, 1)))
    with pytest.raises(ValueError, match=rf"rows\.parquet: not a readable Parquet file \(.*{says}") as error:
        read_parquet(path)
    assert len(str(error.value)) < 1000


def test_a_parquet_file_cut_within_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    data = parquet_bytes(path, pa.array([str(k) for k in range(1000)]))
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:4] + data[end // 2 : end] + data[end:])
    with pytest.raises(ValueError, match=r"rows\.parquet: not a readable Parquet file"):
        read_parquet(path)


@pytest.mark.parametrize("prepared", [False, True])
def test_rows_before_damage_are_read_where_bad_rows_are_set_aside(tmp_path: Path, prepared: bool) -> None:
    """The second of three row groups is damaged: of the first all rows count, and the damage as one."""
    path = tmp_path / "rows.parquet"
    table = pa.table({"click": [0, 1] * 30, "x": [k / 2 for k in range(60)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=20)
    at = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    schema = FeatureSpec(labels=("click",), dense=(DenseColumn(name="x"),))

    def books(bad_rows: str) -> tuple[int, int, int]:
        if prepared:
            found = prepare(
                PrepareConfig(format="parquet", schema=schema), [path], tmp_path / bad_rows, bad_rows=bad_rows
            ).books
            return found["read"], found["written"], found["quarantined"]
        config = DataConfig(format="parquet", path=str(path), split="none", schema=schema)
        splits = open_dataset(config, bad_rows=bad_rows, quarantine_dir=tmp_path / bad_rows)
        return splits.books.read, splits.books.used, splits.books.set_aside

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfdlrm.data.typed._BLOCK_ROWS", 20)
        with pytest.raises(ValueError, match=r"rows\.parquet: not a readable Parquet file"):
            books("error")
        assert books("quarantine") == (21, 20, 1)
    line = (tmp_path / "quarantine" / "quarantine.tsv").read_text().splitlines()[1].split("\t")
    assert line[1] == "21"
    assert line[3].endswith("every later row is lost")


def test_every_byte_of_a_parquet_files_frame(tmp_path: Path) -> None:
    """Whatever stands in page headers and footer is read, with as many rows as the footer has, or refused by name."""
    path = tmp_path / "rows.parquet"
    data = parquet_bytes(path, pa.array([[k, None] if k % 3 else None for k in range(40)]), row_group_size=25)
    refused = 0
    for at in range(len(data)):
        for value in {0, 1, 57, 0x7F, 0xFF} - {data[at]}:
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                assert len(read_parquet(path)) == count_typed_rows(path, "parquet")
            except ValueError as error:
                assert re.search("rows.parquet: |column", str(error))  # noqa: PT017 - not all are refused
                refused += 1
    assert refused > len(data)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_every_byte_of_an_arrow_file(
    tmp_path: Path, compression: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """As of a Parquet file: read, or refused by name; nothing panics on stderr."""
    path = tmp_path / "rows.feather"
    words = pa.array([str(k % 5) for k in range(40)]).dictionary_encode()
    table = pa.table({"bag": [[k, None] if k % 3 else None for k in range(40)], "word": words})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=25)
    data = path.read_bytes()
    refused = 0
    for at in range(len(data)):
        for value in {0, 57, 0xFF} - {data[at]}:
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                num_rows = sum(len(frame) for _, frame in TypedSource(path, "arrow").frames())
                assert num_rows == count_typed_rows(path, "arrow")
            except ValueError as error:
                assert "rows.feather: " in str(error)  # noqa: PT017 - not all are refused
                refused += 1
    assert refused > len(data) // 2
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("nested", [False, True])
def test_decimals_wider_than_polars_are_refused_by_name(
    tmp_path: Path, nested: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.parquet"
    wide = pa.decimal256(50, 2)
    if not nested:  # of one that fits in 38 digits nothing is refused
        parquet_bytes(path, pa.array([decimal.Decimal("12.50")], wide))
        assert read_parquet(path) == ["12.5"]
    value = [decimal.Decimal(1)] if nested else decimal.Decimal(10) ** 45
    parquet_bytes(path, pa.array([value], pa.list_(wide) if nested else wide))
    says = (
        r"column 'item' is .*decimal256\(50, 2\).*Write it as decimal128" if nested else "not a readable.* precision 38"
    )
    with pytest.raises(ValueError, match=rf"rows\.parquet: {says}"):
        read_parquet(path)
    assert capfd.readouterr().err == ""


def test_rows_of_a_parquet_file_are_found_again_across_its_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet_bytes(path, pa.array([str(k) for k in range(100)]), row_group_size=7)
    lines = [100, 1, 8, 7, 8, 50]
    assert TypedSource(path, "parquet").raw_rows(lines) == {line: str(line - 1).encode() for line in lines}
    blocks = list(TypedSource(path, "parquet").blocks())
    assert [int(line) for block in blocks for line in block.lines] == list(range(1, 101))
    assert blocks[0].raw(41) == b"41"


def test_rows_of_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(ValueError, match=r"rows\.parquet: not a readable Parquet file"):
        count_typed_rows(tmp_path / "rows.parquet", "parquet")


def test_an_arrow_file_that_was_cut_off(tmp_path: Path) -> None:
    path = sample.write_arrow(tmp_path / "rows.feather", sample.sample_rows(40))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"rows\.feather: does not end as an Arrow file does: it was cut off"):
        list(TypedSource(path, "arrow").blocks())


def test_a_date_is_one_in_every_file(tmp_path: Path) -> None:
    table = pa.table({"day": pa.array([datetime.date(2024, 2, 29), None], pa.date64())})
    pq.write_table(table, tmp_path / "rows.parquet")
    feather.write_feather(table, tmp_path / "rows.feather")
    for name in ("parquet", "feather"):
        (block,) = TypedSource(tmp_path / f"rows.{name}", "parquet" if name == "parquet" else "arrow").blocks()
        assert block.frame["day"].to_list() == [datetime.date(2024, 2, 29), None]
    assert to_polars(table)["day"].to_list() == [datetime.date(2024, 2, 29), None]


@pytest.mark.parametrize("nested", [False, True])
def test_decimals_of_a_table_that_are_too_wide(nested: bool) -> None:
    value = decimal.Decimal(10) ** 45
    kind = pa.decimal256(50, 2)
    table = pa.table({"item": pa.array([[value] if nested else value], pa.list_(kind) if nested else kind)})
    says = r"column 'item' is list<.*Write it as decimal128" if nested else "Decimal value does not fit in precision 38"
    with pytest.raises(ValueError, match=rf"^frame: {says}"):
        to_polars(table)
