"""Files that `tools/fuzz.py --of files` was stopped by once, and files that unpack to more than they are."""

from __future__ import annotations

import decimal
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import sample_rows as sample
from tests.data.fuzz_files import read_all
from tests.data.test_hostile_prepared import read_table
from tfdlrm.config.data import DataConfig
from tfdlrm.data.chunks import MAX_HEADER_BYTES, read_chunks, read_first_line
from tfdlrm.data.inspect.label_rates import count_typed_rows
from tfdlrm.data.inspect.prepared_folder import PreparedInput
from tfdlrm.data.lines import MOST_BLANK_LINES
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.tabular import TypedSource, check_columns
from tfdlrm.data.vocabulary import Vocabulary
from tfdlrm.files import read_json, read_text
from tfdlrm.native.columns import PartedColumn
from tfdlrm.schema import DenseColumn, FeatureSpec

PREPARED_FILE = "train/part-00000.arrow"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("whole")
    path = sample.write_csv(base / "rows.csv", sample.sample_rows(40))
    prepare(PrepareConfig(format="csv", schema=sample.SPEC), [path], base / "out", bad_rows="quarantine")
    return base / "out"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def refuses(folder: Path, named: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as error:
        read_all(folder)
    assert str(folder / named) in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_columns_are_refused_before_they_are_unpacked(folder: Path, codec: str) -> None:
    table = read_table(folder / PREPARED_FILE)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with (
        pa.OSFile(str(folder / PREPARED_FILE), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    refuses(folder, PREPARED_FILE, "its columns are compressed, and prepared ones are not")


def test_a_column_whose_name_is_not_utf_8(folder: Path) -> None:
    file = folder / PREPARED_FILE
    file.write_bytes(file.read_bytes().replace(b"seen_weights", b"seen\xceweights"))
    refuses(folder, PREPARED_FILE, "not a whole Arrow file")


@pytest.mark.parametrize("length", [-1, 0, 2**31 - 1])
def test_a_footer_that_does_not_fit(folder: Path, length: int) -> None:
    file = folder / PREPARED_FILE
    data = bytearray(file.read_bytes())
    data[-10:-6] = length.to_bytes(4, "little", signed=True)
    file.write_bytes(data)
    refuses(folder, PREPARED_FILE, "not a whole Arrow file")


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        ("manifest.json", lambda text: b"\xff" + text, "is no UTF-8 text"),
        ("manifest.json", lambda text: text.replace(b'n": 1', b'n": "%s"' % (b"x" * 10**6)), "version 'x"),
        ("manifest.json", lambda text: text.replace(b'"books"', b'"boots"'), "not a manifest of prepared data"),
        ("manifest.json", lambda text: text.replace(b'"read": ', b'"read": -', 1), "read=-.* is too small"),
        ("manifest.json", lambda text: text.replace(b'"read": ', b'"read": 1', 1), "the books do not balance"),
        ("manifest.json", lambda text: b"[" * 10**5, "too many lists in each other"),
        ("manifest.json", lambda text: b"[" + b"[]," * 600_000 + b"0]", "more than 500,000 values"),
        ("manifest.json", lambda text: b" " * 2**23 + text, "more than 8,388,608 bytes"),
        ("schema.yaml", lambda text: text + b"\xff", "is no UTF-8 text"),
        ("schema.yaml", lambda text: text.replace(b"table: item", b"table: it9m", 1), "lacks table 'it9m'"),
        ("preprocessing.yaml", lambda text: text + b"\xff", "is no UTF-8 text"),
        ("preprocessing.yaml", lambda text: b"- 1\n", "the document=.* is a list"),
        ("preprocessing.yaml", lambda text: b"id_modulo: 0\nvocabularies: {}\n", "id_modulo=0 is too small"),
        ("preprocessing.yaml", lambda text: text.replace(b"city:", b"town:"), "'town', which is no table"),
        ("preprocessing.yaml", lambda text: re.sub(b"values: [0-9]+", b"values: many", text, count=1), "values='many'"),
        ("preprocessing.yaml", lambda text: re.sub(b"has_oov: [a-z]+", b"has_oov: 2", text, count=1), "has_oov=2"),
        ("preprocessing.yaml", lambda text: text.replace(b"vocabularies/city.txt", b"/etc/passwd"), "is no name of"),
        ("vocabularies/city.txt", lambda text: b"\xff\n" + text, "is no UTF-8 text"),
        ("vocabularies/code.txt", lambda text: b"f" * 17 + b"\n" + text, r"line 1: 'f+' is not in \[0, 2\^63\)"),
        ("vocabularies/code.txt", lambda text: b"-1\n" + text, r"line 1: '-1' is not in \[0, 2\^63\)"),
    ],
)  # fmt: skip
def test_descriptions_beside_the_columns(folder: Path, file: str, change: Callable[[bytes], bytes], text: str) -> None:
    path = folder / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=text) as error:
        read_all(folder)
    assert str(folder) in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a folder, a device, a pipe or a socket"):
        read_text(tmp_path / "pipe")


def test_a_value_that_is_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, null]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is no JSON: Expecting property name"):
        read_json(tmp_path / "a.json")


def test_a_weight_beyond_float32_is_a_bad_row(tmp_path: Path) -> None:
    rows = sample.sample_rows(3)
    rows[1]["seen"], rows[1]["seen_weights"] = [1], [1e300]
    path = sample.write_csv(tmp_path / "rows.csv", rows)
    config = DataConfig(format="csv", path=str(path), schema=sample.SPEC)
    with pytest.raises(ValueError, match=r"column .seen_weights.: a weight is not a finite number of float32"):
        open_dataset(config)


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
        patch.setattr("tfdlrm.data.tabular._TYPED_BLOCK_ROWS", 20)
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
    value = [decimal.Decimal(1)] if nested else decimal.Decimal(1)
    parquet_bytes(path, pa.array([value], pa.list_(wide) if nested else wide))
    with pytest.raises(
        ValueError, match=r"rows\.parquet: column 'item' is .*decimal256\(50, 2\).*Write it as decimal128"
    ):
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


def test_a_source_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(ValueError, match=r"rows\.csv: a device, a pipe or a socket, where a CSV file"):
        open_dataset(DataConfig(format="csv", path=str(tmp_path / "rows.csv"), schema=sample.SPEC))


def test_a_header_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"x" * (MAX_HEADER_BYTES + 2**21))
    with pytest.raises(ValueError, match="no end of the first line within 1 MiB"):
        read_first_line(path)
    path.write_bytes(b'"' + b"x" * 200_000 + b'"\n')
    config = DataConfig(format="csv", path=str(path), schema=sample.SPEC)
    with pytest.raises(ValueError, match=r"rows\.csv, line 1: no line of a CSV file"):
        open_dataset(config)


def test_a_header_of_many_columns_is_looked_at_once() -> None:
    names = [f"c{number}" for number in range(300_000)]
    with pytest.raises(ValueError, match="'click' of the schema is missing") as error:
        check_columns("rows.csv", names, sample.SPEC)
    assert len(str(error.value)) < 500
    with pytest.raises(ValueError, match="'c7' occurs twice"):
        check_columns("rows.csv", [*names, "c7"], sample.SPEC)


def test_hex_values_of_other_lengths(tmp_path: Path) -> None:
    (tmp_path / "code.txt").write_text("1\nff\n7fffffffffffffff\n")
    found = Vocabulary.load(tmp_path / "code.txt", encoding="hex", has_oov=False)
    assert found.values.to_list() == [1, 255, 2**63 - 1]


def test_no_rows_of_a_column_are_taken() -> None:
    out = np.zeros((0, 2), np.float32)
    PartedColumn([np.zeros((3, 2), np.uint8)]).take(np.zeros(0, np.int32), np.zeros(0, np.int32), out)


def test_gzip_is_unpacked_piece_by_piece(tmp_path: Path) -> None:
    text = b"0123456789abcdef\n" * 10**6
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(text[:5]) + gzip.compress(text[5:], mtime=0) + b"\0" * 512)
    assert b"".join(read_chunks(path, 2**16)) == text


def test_a_gzip_file_of_zeros_takes_no_more_memory_than_others(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b"0\n" * 2**23)  # 1 GiB in all
    program = """
import resource, sys
from pathlib import Path
from tfdlrm.data.chunks import read_chunks
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(map(len, read_chunks(Path(sys.argv[1]), 2**20)))
print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    total, grown_kib = map(int, found.stdout.split())
    assert total == 2**30
    assert grown_kib < 100 * 2**10


def test_a_file_of_blank_lines_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"click\n" + b"\n" * (MOST_BLANK_LINES + 10))
    config = DataConfig(format="csv", path=str(path), schema=FeatureSpec(labels=("click",)))
    with pytest.raises(ValueError, match=r"rows\.csv, line \d+: more than 1,000,000 blank lines"):
        open_dataset(config)


def test_a_source_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/h\xff.csv")
    Path(path).write_bytes(sample.csv_bytes(sample.sample_rows(3)))
    with pytest.raises(ValueError, match=r"a name that is not UTF-8, or not printable\. Rename the file"):
        prepare(PrepareConfig(format="csv", schema=sample.SPEC), [path], tmp_path / "out")


def test_inspection_waits_for_no_pipe_and_follows_no_link(folder: Path, tmp_path: Path) -> None:
    file = folder / PREPARED_FILE
    file.rename(tmp_path / "part")
    os.mkfifo(file)
    with pytest.raises(ValueError, match=r"part-00000\.arrow: is a device, a pipe or a socket"):
        PreparedInput(folder)
    file.unlink()
    file.symlink_to(tmp_path / "part")
    with pytest.raises(ValueError, match=r"part-00000\.arrow: a link leads out of"):
        PreparedInput(folder)
    file.unlink()
    shutil.copy(tmp_path / "part", file)
    schema = folder / "schema.yaml"
    schema.write_text(schema.read_text().replace("item: 50", "item: 5"))
    with pytest.raises(ValueError, match=r"column 'item': id \d+ is not in \[0, 5\), the rows of table 'item'"):
        list(PreparedInput(folder).blocks())
