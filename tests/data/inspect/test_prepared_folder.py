"""Reports of prepared folders: every number against the oracle, and folders that are not whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pyarrow")

from tests.data.inspect import oracle, prepared_sample
from tfdlrm.data.inspect import inspect_data, prepared_folder

TRAIN = prepared_sample.rows(80, 0)
VALIDATION = prepared_sample.rows(20, 1, first_day=8)
TEST = prepared_sample.rows(30, 2, first_day=10)
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def _all(name: str) -> list:
    return [cell for part in PARTS.values() for cell in part[name]]


def _bags(cells: list) -> list[list]:
    return [cell if isinstance(cell, list) else [cell] for cell in cells]


@pytest.mark.parametrize("block_rows", [3, 2**17])
def test_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    monkeypatch.setattr(prepared_folder, "_BLOCK_ROWS", block_rows)
    report = inspect_data(prepared_sample.write(tmp_path, PARTS))
    assert (report.data_format, report.rows_read, report.rows_used) == ("prepared", 130, 130)
    assert [(part.name, part.rows) for part in report.parts] == [("train", 80), ("validation", 20), ("test", 30)]
    for label in report.labels:
        values = _all(label.name)
        assert label.rate == pytest.approx(np.mean(values))
        by_day = {group.name: group.rate for group in label.by_section}
        assert by_day == pytest.approx({str(day): np.mean(values[10 * day : 10 * day + 10]) for day in range(13)})
    for dense in report.dense:
        expected = oracle.dense_numbers(_all(dense.name))
        quantiles = expected.pop("quantiles")
        assert {name: getattr(dense, name) for name in expected} == pytest.approx(expected, abs=1e-12)
        assert dense.quantiles == pytest.approx(quantiles)
    for ids in report.categorical:
        bags = _bags(_all(ids.name))
        expected = oracle.id_numbers(bags)
        counts = expected.pop("counts")
        assert {name: getattr(ids, name) for name in expected} == pytest.approx(expected)
        assert [top.count for top in ids.top] == counts[:10]
        if ids.name in ("pair", "tags"):
            lengths = [len(bag) for bag in bags]
            assert ids.bag_length == (min(lengths), pytest.approx(np.mean(lengths)), max(lengths))
    for column in report.drift:
        if column.kind == "categorical":
            train, other = (
                [0 if column.name == "city" and token == 0 else token for bag in _bags(cells) for token in bag]
                for cells in (TRAIN[column.name], PARTS[column.part][column.name])
            )
            unseen = [token not in set(train) or (column.name == "city" and token == 0) for token in other]
            assert column.unseen_share == pytest.approx(np.mean(unseen))
        elif column.kind == "dense":
            expected_psi = oracle.dense_psi(TRAIN[column.name], PARTS[column.part][column.name])
            assert column.psi == pytest.approx(expected_psi)
    json.dumps(report.to_dict(), allow_nan=False)


def test_ids_are_shown_with_their_values(tmp_path: Path) -> None:
    report = inspect_data(prepared_sample.write(tmp_path, PARTS))
    shown = {ids.name: {top.value for top in ids.top} for ids in report.categorical}
    assert shown["city"] == {"0 = (out of vocabulary)", "1 = Paris", "2 = (empty)", "3 = Rio\\nde Janeiro"}
    assert shown["code"] == {"0 = 000000ff", "1 = 00000000", "2 = 0000abcd"}
    assert all(value.isdigit() for value in shown["pair"])


def test_groups_of_rows_where_there_is_no_day(tmp_path: Path) -> None:
    report = inspect_data(prepared_sample.write(tmp_path, PARTS, leave_out=["day"]), num_sections=4)
    groups = [(group.name, group.rows) for group in report.labels[0].by_section]
    assert groups == [*((f"train {k} of 4", 20) for k in (1, 2, 3, 4)), ("validation", 20), ("test", 30)]


def test_the_fill_value_of_missing_cells_is_not_suspicious(tmp_path: Path) -> None:
    part = prepared_sample.rows(60, 3)
    part["price"] = [0.0] * 40 + part["price"][40:]
    report = inspect_data(prepared_sample.write(tmp_path, {"train": part}))
    assert not any(found.column == "price" for found in report.findings)
    part["price"] = [1.5] * 40 + part["price"][40:]
    report = inspect_data(prepared_sample.write(tmp_path, {"train": part}))
    assert any("one value, 1.5, holds" in found.text for found in report.findings)


def test_max_rows_empty_parts_and_one_row(tmp_path: Path) -> None:
    folder = prepared_sample.write(tmp_path / "a", PARTS)
    assert [part.rows for part in inspect_data(folder, max_rows=25).parts] == [25, 20, 25]
    empty = {name: [] for name in TRAIN}
    report = inspect_data(prepared_sample.write(tmp_path / "b", {"train": TRAIN, "test": empty}))
    assert [part.rows for part in report.parts] == [80]
    assert report.drift == ()
    one = {name: cells[:1] for name, cells in TRAIN.items()}
    assert inspect_data(prepared_sample.write(tmp_path / "c", {"train": one})).rows_used == 1


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    folder = prepared_sample.write(tmp_path / "a", PARTS)
    for option in ({"schema": prepared_sample.SPEC}, {"id_modulo": 3}, {"test_path": folder}):
        with pytest.raises(ValueError, match="a prepared folder has its own"):
            inspect_data(folder, **option)
    (folder / "train" / "part-00000.arrow").write_bytes(b"ARROW1 and nothing more")
    with pytest.raises(ValueError, match=r"part-00000.arrow: not a whole Arrow file"):
        inspect_data(folder)
    folder = prepared_sample.write(tmp_path / "b", PARTS, leave_out=["tags"])
    with pytest.raises(ValueError, match="column 'tags' of the schema is missing"):
        inspect_data(folder)
    folder = prepared_sample.write(tmp_path / "c", {"test": TEST})
    with pytest.raises(ValueError, match="has no rows to train on"):
        inspect_data(folder)
    (folder / "preprocessing.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="no preprocessing there"):
        inspect_data(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"manifest.json: no prepared data there"):
        inspect_data(folder, data_format="prepared")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 24}, "train: rows=80, and its files have 79"),
        ({"name": "train/nowhere.arrow"}, r"nowhere\.arrow: is missing, and the manifest names it"),
        ({"name": "../elsewhere.arrow"}, r"'\.\./elsewhere\.arrow' is no name of a file in it"),
    ],
)
def test_the_manifest_is_read(tmp_path: Path, change: dict, message: str) -> None:
    folder = prepared_sample.write(tmp_path, PARTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["parts"]["train"]["files"][0].update(change)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inspect_data(folder)


def test_a_file_with_other_rows_than_the_manifest_says(tmp_path: Path) -> None:
    folder = prepared_sample.write(tmp_path, PARTS)
    (folder / "train" / "part-00000.arrow").write_bytes((folder / "train" / "part-00003.arrow").read_bytes())
    with pytest.raises(ValueError, match=r"part-00000\.arrow: has 5 rows, and the manifest says 25"):
        inspect_data(folder)


@pytest.mark.parametrize(
    ("column", "array", "form"),
    [
        ("city", pa.array(["a"] * 25), "string"),
        ("city", pa.array([1.0] * 25), "double"),
        ("city", pa.array([{"a": 1}] * 25), "struct<a: int64>"),
        ("tags", pa.array([[[1]]] * 25), "list<item: list<item: int64>>"),
        ("tags", pa.array([["a"]] * 25), "list<item: string>"),
        ("tag_weights", pa.array([["a"]] * 25), "list<item: string>"),
        ("price", pa.array([None] * 25), "null"),
        ("age", pa.array([1] * 25, pa.timestamp("s")), r"timestamp\[s\]"),
        ("click", pa.array([-1] * 25), "int64"),
    ],
)
def test_columns_of_another_type_are_refused(tmp_path: Path, column: str, array: pa.Array, form: str) -> None:
    folder = prepared_sample.write(tmp_path, PARTS)
    file = folder / "train" / "part-00000.arrow"
    with pa.OSFile(str(file)) as stream:
        table = pa.ipc.open_file(stream).read_all()
    table = table.set_column(table.column_names.index(column), column, array)
    with pa.OSFile(str(file), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=rf"part-00000\.arrow: column '{column}' is {form} where the schema asks for"):
        inspect_data(folder)


def test_nulls_and_numbers_that_are_none_count_as_missing(tmp_path: Path) -> None:
    part = prepared_sample.rows(40, 4)
    part["age"][3], part["age"][5], part["age"][6] = None, float("nan"), float("inf")
    folder = prepared_sample.write(tmp_path, {"train": part})
    file = folder / "train" / "part-00000.arrow"
    data = file.read_bytes()
    quiet, signaling = (np.uint32(bits).tobytes() for bits in (0x7FC00000, 0x7FA00000))
    assert quiet in data
    for nan in (quiet, signaling):
        file.write_bytes(data.replace(quiet, nan))
        assert inspect_data(folder).dense[1].missing_rate == pytest.approx(3 / 40)
