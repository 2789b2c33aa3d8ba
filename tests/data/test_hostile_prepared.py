"""Prepared data that somebody else has written or changed: nothing is read that is not there, the fault is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data import sample_rows as sample
from tests.native.test_plain_functions import NATIVE, PLAIN, library
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import PreparedRows, prepared_dataset
from tfdlrm.data.streaming import EpochRows
from tfdlrm.files import path_inside
from tfdlrm.native.columns import OutOfRangeError, PartedColumn

PART = "train/part-00001.arrow"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("whole")
    path = sample.write_csv(base / "rows.csv", sample.sample_rows(200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfdlrm.data.prepare.output.rows_a_file", lambda _encoder, _codes: 64)
        prepare(PrepareConfig(format="csv", schema=sample.SPEC), [path], base / "out", bad_rows="quarantine")
    return base / "out"


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def read_table(file: Path) -> pa.Table:
    with pa.OSFile(str(file)) as stream:
        return pa.ipc.open_file(stream).read_all()


def write_table(file: Path, table: pa.Table, rows_a_batch: int | None = None) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)


def replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def bags_of(table: pa.Table, name: str) -> pa.Array:
    return table[name].chunk(0)


def read_all(folder: Path) -> None:
    """As training, evaluation and prediction read: by blocks, with keys and without, and by rows."""
    source = prepared_dataset(folder).source
    assert isinstance(source, PreparedRows)
    source.read_blocks(range(-(-source.num_rows // source.block_rows)))
    EpochRows(source, shuffle=True, seed=0, epoch=0, keys=False).read(0, source.num_rows)


WIDE = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64 * 50, np.float32)), 50)
COLUMNS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a dense column of lists": (
        lambda t: replace(t, "plain", WIDE),
        r"'plain' is fixed_size_list<.*>\[50\] where the schema asks for float",
    ),
    "bags of another width": (
        lambda t: replace(t, "pair", pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64, np.uint8)), 1)),
        r"'pair' is fixed_size_list<.*>\[1\] where the schema asks for bags of 2, uint8 or",
    ),
    "bags of no width": (
        lambda t: replace(t, "pair", pa.nulls(64, pa.list_(pa.uint8(), 0))),
        "'pair' is .* where the schema asks for bags of 2",
    ),
    "bags where one id is due": (
        lambda t: replace(t, "page", bags_of(t, "pair")),
        "'page' is fixed_size_list.* where the schema asks for uint8 or uint16 or int32 or int64$|Prepare",
    ),
    "ids that are floats": (
        lambda t: replace(t, "page", pa.array(np.full(64, np.nan, np.float32))),
        "'page' is float where the schema asks for uint8",
    ),
    "ids of another type than in the first file": (
        lambda t: replace(t, "page", bags_of(t, "page").cast(pa.int64())),
        "'page' is int64, in the part's first file uint8",
    ),
    "a ragged column that is none": (
        lambda t: replace(t, "tags", bags_of(t, "page")),
        "'tags' is uint8 where the schema asks for bags, uint8 or",
    ),
    "text for a dense column": (
        lambda t: replace(t, "plain", pa.array(["x"] * 64)),
        "'plain' is string where the schema asks for float",
    ),
    "empty cells": (
        lambda t: replace(t, "plain", pa.array([None] * 64, pa.float32())),
        "'plain' has empty cells",
    ),
    "empty cells in bags": (
        lambda t: replace(t, "tags", pa.array([[None]] * 64, pa.large_list(pa.uint8()))),
        "'tags' has empty cells",
    ),
    "a column that is missing": (lambda t: t.drop_columns(["age"]), "'age' of the schema is missing"),
    "a column that is there twice": (
        lambda t: t.append_column("age", t["age"]),
        "'age' of the schema is there twice",
    ),
    "an id beyond the table": (
        lambda t: replace(t, "page", pa.array(np.where(np.arange(64) == 5, 13, 0).astype(np.uint8))),
        r"'page', row 5: id 13 is not in \[0, 13\), the rows of table 'page'",
    ),
    "an id below 0": (
        lambda t: replace(t, "pair", pa.array([[0, -1]] * 64, pa.list_(pa.int32(), 2))),
        r"'pair' is int32, in the part's first file uint8|'pair', row 0: id -1 is not in \[0, 50\)",
    ),
    "an id in a bag beyond the table": (
        lambda t: replace(t, "seen", pa.array([[1]] * 9 + [[2, 99]] * 55, pa.large_list(pa.uint8()))),
        r"'seen', row 9: id 99 is not in \[0, 50\), the rows of table 'item'",
    ),
    "a label that is none": (
        lambda t: replace(t, "click", pa.array(np.full(64, 2, np.uint8))),
        "'click', row 0: label 2 is not 0 or 1",
    ),
    "weights of other bags": (
        lambda t: replace(t, "seen_weights", pa.array([[1.0]] * 64, pa.large_list(pa.float32()))),
        "'seen_weights' has other bags than 'seen', which it weights",
    ),
    "a key that is a list": (
        lambda t: replace(t, "user", bags_of(t, "pair")),
        "'user' is fixed_size_list.* where the schema asks for int8 or",
    ),
}


@pytest.mark.parametrize("which", [NATIVE, PLAIN])
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_another_form_is_refused(folder: Path, kind: str, which: str) -> None:
    change, message = COLUMNS[kind]
    write_table(folder / PART, change(read_table(folder / PART)))
    with library(which), pytest.raises(ValueError, match=rf"part-00001\.arrow: column .*{message}"):
        read_all(folder)


def test_rows_in_several_pieces_are_refused(folder: Path) -> None:
    write_table(folder / PART, read_table(folder / PART), rows_a_batch=40)
    with pytest.raises(ValueError, match=r"part-00001\.arrow: column 'price' is in 2 pieces, and not in one"):
        read_all(folder)


OFFSETS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the last beyond": lambda o: np.append(o[:-1], o[-1] + 10**6),
    "several beyond": lambda o: np.append(o[:-9], o[-9:] + 5000),
    "all beyond": lambda o: o + 10**7,
    "below 0": lambda o: np.sort(np.append(o[:9] - 1000, o[9:])),
    "huge": lambda o: np.append(o[:-1], 2**62),
    "falling": lambda o: np.append(o[:9][::-1], o[9:]),
}


@pytest.mark.parametrize("kind", OFFSETS)
@pytest.mark.parametrize("column", ["seen", "tags", "seen_weights", "city"])
def test_offsets_that_lead_elsewhere_are_refused(folder: Path, column: str, kind: str) -> None:
    """Written into the file itself: reading does not look at them. `city` is text, a key."""
    name = "key:city" if column == "city" else column
    file = folder / PART
    array = read_table(file)[name].chunk(0)
    old = np.frombuffer(array.buffers()[1], np.int64)[: len(array) + 1]
    content = file.read_bytes()
    # weights have the same offsets as their ids, and come behind them
    at = content.rfind(old.tobytes()) if column == "seen_weights" else content.find(old.tobytes())
    assert at > 0
    new = OFFSETS[kind](old).astype(np.int64)
    file.write_bytes(content[:at] + new.tobytes() + content[at + new.nbytes :])
    with pytest.raises(ValueError, match=rf"part-00001\.arrow: column '{name}': .*\. Prepare the data again\."):
        read_all(folder)


def change_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def first_file(manifest: dict) -> dict:
    return manifest["parts"]["train"]["files"][0]


MANIFESTS: dict[str, tuple[Callable[[dict], object], str]] = {
    "a name above": (
        lambda m: first_file(m).update(name="../rows.csv"),
        r"'\.\./rows\.csv' is no name of a file in it",
    ),
    "an absolute name": (lambda m: first_file(m).update(name="/etc/passwd"), "'/etc/passwd' is no name of a file"),
    "no name": (lambda m: first_file(m).update(name=5), "name=5 is a int. Give a string"),
    "a name of control characters": (lambda m: first_file(m).update(name="a\x1b[2J"), "is no name of a file"),
    "rows below 1": (lambda m: first_file(m).update(rows=-4), "rows=-4 is too small"),
    "rows that are text": (lambda m: m["parts"]["train"].update(rows="1"), "rows='1' is a str"),
    "rows that do not add up": (lambda m: m["parts"]["train"].update(rows=10**30), r"and its files have \d+"),
    "a part of another name": (lambda m: m["parts"].update(extra=m["parts"]["train"]), "part='extra' is not known"),
    "no mapping of parts": (lambda m: m.update(parts=[]), r"parts=\[\] is a list"),
    "no parts": (lambda m: m.pop("parts"), "not a manifest of prepared data"),
    "no output": (lambda m: m.update(config={}), "not a manifest of prepared data"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_another_form_is_refused(folder: Path, kind: str) -> None:
    change, message = MANIFESTS[kind]
    change_manifest(folder, change)
    with pytest.raises(ValueError, match=message):
        prepared_dataset(folder)


def test_a_manifest_of_many_brackets_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest of prepared data"):
        prepared_dataset(folder)


def test_links_and_pipes_in_the_place_of_files_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes((folder / PART).read_bytes())
    (folder / PART).unlink()
    (folder / PART).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"part-00001\.arrow: a link leads out of .*copy\. Put the file itself there"):
        prepared_dataset(folder)
    (folder / PART).unlink()
    os.mkfifo(folder / PART)
    with pytest.raises(ValueError, match=r"part-00001\.arrow: is a device, a pipe or a socket"):
        prepared_dataset(folder)
    (folder / PART).unlink()
    (folder / PART).symlink_to("part-00000.arrow")
    assert prepared_dataset(folder).num_rows == 200


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/..", "/a", "a//b", "a/", "a\\b", "a\0", "a\n", "\x1b[2J", "é" * 200, None, 5, ["a"], b"a"],
)
def test_names_that_are_none(tmp_path: Path, name: object) -> None:
    with pytest.raises(ValueError, match="is no name of a file in it"):
        path_inside(tmp_path, name)


def test_names(tmp_path: Path) -> None:
    for name in ("a", "a/b", "..a", "a..", "ä b.txt", "-"):
        assert path_inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("which", [NATIVE, PLAIN])
def test_what_is_gathered_fits_its_place(which: str) -> None:
    column = PartedColumn([np.array([[1, 2], [3, 60]], np.uint8)], limit=60)
    first, second = np.zeros(1, np.int32), np.ones(1, np.int32)
    with library(which):
        out = np.zeros((1, 2), np.int32)
        column.take(first, first, out)
        assert out.tolist() == [[1, 2]]
        with pytest.raises(OutOfRangeError) as raised:
            column.take(np.zeros(3, np.int32), np.array([0, 0, 1], np.int32), np.zeros((3, 2), np.int32))
        assert raised.value.position == 2
        for wrong in (np.zeros((1, 1), np.int32), np.zeros((1, 3), np.int32), np.zeros(1, np.int64), np.zeros((1, 2))):
            with pytest.raises(ValueError, match="PartedColumn: out is"):
                column.take(first, second, wrong)
        with pytest.raises(ValueError, match="need int32"):
            column.take(np.zeros(2, np.int32)[::2], np.zeros(2, np.int64)[:1], out)
        with pytest.raises(IndexError):
            column.take(first, np.full(1, -1, np.int32), out)
        column.copy(0, 0, 1, out)
        assert out.tolist() == [[1, 2]]
        with pytest.raises(OutOfRangeError) as raised:
            column.copy(0, 0, 2, np.zeros((2, 2), np.int32))
        assert raised.value.position == 1
    with pytest.raises(ValueError, match=r"rows of a part have shape \(1,\), of the first \(2,\)"):
        PartedColumn([np.zeros((3, 2), np.uint8), np.zeros((3, 1), np.uint8)])
    with pytest.raises(ValueError, match="a limit is of integers"):
        PartedColumn([np.zeros(3, np.float32)], limit=3)
