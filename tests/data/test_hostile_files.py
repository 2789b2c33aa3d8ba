"""Files that `tools/fuzz.py --of files` was stopped by once, and files that unpack to more than they are."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data import sample_rows as sample
from tests.data.fuzz_files import read_all
from tests.data.test_hostile_prepared import read_table
from tfdlrm.config.data import DataConfig
from tfdlrm.data.chunks import MAX_HEADER_BYTES, read_chunks, read_first_line
from tfdlrm.data.inspect.prepared_folder import PreparedInput
from tfdlrm.data.lines import MOST_BLANK_LINES
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.tabular import check_columns
from tfdlrm.data.vocabulary import Vocabulary
from tfdlrm.files import read_json, read_text
from tfdlrm.native.columns import PartedColumn
from tfdlrm.schema import FeatureSpec

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
