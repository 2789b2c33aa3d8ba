"""A few rows with every kind of column, and writers of them in every format."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import tensorflow as tf

from tfdlrm.data.batching import to_arrays
from tfdlrm.data.columns import Columns, RaggedColumn
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

SPEC = FeatureSpec(
    labels=("click", "buy"),
    dense=(
        DenseColumn(name="price", transform="log1p"),
        DenseColumn(name="age", transform="standardize", missing=30.0),
        DenseColumn(name="score", transform="clip", minimum=-1.0, maximum=1.0),
        DenseColumn(name="plain"),
    ),
    categorical=(
        CategoricalColumn(name="item", id_policy="error"),
        CategoricalColumn(name="city", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="code", encoding="hex"),
        CategoricalColumn(name="page", encoding="hash"),
        CategoricalColumn(name="pair", hotness=2, table="item"),
        CategoricalColumn(name="tags", hotness=None, encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="seen", hotness=None, table="item", weights="seen_weights"),
    ),
    keys=("user", "city"),
    vocabulary_sizes={"item": 50, "page": 13},
)

CITIES = ("Paris", "Zürich", 'New "York"', "Rio, RJ", "", "line\nbreak")
TAGS = ("red", "green", "blue")

# Text as it stands in a file, one dict a row; lists are bags.
Row = dict[str, Any]


def sample_rows(num_rows: int, seed: int = 0) -> list[Row]:
    """Rows in which every column has some empty cells, where it may."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        num_seen = int(random.integers(0, 4))
        rows.append(
            {
                "click": int(random.integers(0, 2)),
                "buy": int(random.integers(0, 2)),
                "price": None if random.random() < 0.2 else int(random.integers(-3, 5000)),
                "age": None if random.random() < 0.2 else round(float(random.uniform(18, 90)), 2),
                "score": round(float(random.normal()), 3),
                "plain": round(float(random.normal()), 3),
                "item": int(random.integers(0, 50)),
                "city": CITIES[random.integers(0, len(CITIES))],
                "code": "" if random.random() < 0.2 else f"{random.integers(0, 2**32):08x}",
                "page": f"page-{random.integers(0, 40)}",
                "pair": [int(id_) for id_ in random.integers(0, 50, 2)],
                "tags": [TAGS[i] for i in random.integers(0, 3, random.integers(0, 4))],
                "seen": [int(id_) for id_ in random.integers(0, 50, num_seen)],
                "seen_weights": [round(float(w), 3) for w in random.uniform(0.1, 2.0, num_seen)],
                "user": number // 3,
            }
        )
    return rows


def as_text(cell: Any) -> str:
    """A cell as it stands in a text file."""
    if isinstance(cell, list):
        return " ".join(str(item) for item in cell)
    return "" if cell is None else str(cell)


def csv_bytes(rows: Sequence[Row], separator: str = ",", newline: str = "\n", columns: Sequence[str] = ()) -> bytes:
    """A CSV file with a header, quoted where needed."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns or list(rows[0]), delimiter=separator, lineterminator=newline)
    writer.writeheader()
    writer.writerows({name: as_text(cell) for name, cell in row.items()} for row in rows)
    return stream.getvalue().encode()


def write_csv(path: Path, rows: Sequence[Row], **form: Any) -> Path:
    """Write `csv_bytes`; gzip if the path says so."""
    content = csv_bytes(rows, **form)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_parquet(path: Path, rows: Sequence[Row], *, as_lists: bool = True) -> Path:
    """Typed columns; bags as lists or as text."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if not as_lists:
        columns = {n: [as_text(c) if isinstance(c, list) else c for c in cells] for n, cells in columns.items()}
    pl.DataFrame(columns).write_parquet(path)
    return path


def write_arrow(path: Path, rows: Sequence[Row]) -> Path:
    """An Arrow IPC file of several record batches, compressed, with dictionaries, as Feather files are."""
    table = pl.DataFrame({name: [row[name] for row in rows] for name in rows[0]}).to_arrow()
    columns = [
        column.dictionary_encode() if pa.types.is_large_string(column.type) else column for column in table.columns
    ]
    table = pa.table(columns, table.column_names)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=23)
    return path


def criteo_text(rows: Sequence[Sequence[object]]) -> bytes:
    """Tab-separated lines without a header."""
    return "".join("\t".join(as_text(cell) for cell in row) + "\n" for row in rows).encode()


def criteo_rows(num_rows: int, seed: int = 0) -> list[list[object]]:
    """Invented rows in Criteo's shape: label, 13 integers, 26 hex strings, each cell now and then empty."""
    random = np.random.default_rng(seed)
    rows: list[list[object]] = []
    for _ in range(num_rows):
        integers = [None if random.random() < 0.2 else int(random.integers(-2, 1000)) for _ in range(13)]
        hexes = [None if random.random() < 0.2 else f"{random.integers(0, 30):08x}" for _ in range(26)]
        rows.append([int(random.integers(0, 2)), *integers, *hexes])
    return rows


def assert_same_columns(found: Columns, expected: Columns) -> None:
    """Every array equal in dtype, shape and value."""
    tf.nest.assert_same_structure(to_arrays(found), to_arrays(expected))
    for one, other in zip(tf.nest.flatten(to_arrays(found)), tf.nest.flatten(to_arrays(expected)), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def columns_of_every_kind(num_rows: int, seed: int = 0) -> tuple[FeatureSpec, Columns]:
    """Encoded rows made directly; `plain` holds the number of the row, so that order can be read off."""
    random = np.random.default_rng(seed)
    spec = FeatureSpec(
        labels=("click", "buy"),
        dense=(DenseColumn(name="plain"), DenseColumn(name="other")),
        categorical=(
            CategoricalColumn(name="z_item"),
            CategoricalColumn(name="pair", hotness=2, weights="pair_weights"),
            CategoricalColumn(name="tags", hotness=None),
            CategoricalColumn(name="seen", hotness=None, weights="seen_weights"),
            CategoricalColumn(name="a_item", weights="a_weights"),
        ),
        keys=("user",),
        vocabulary_sizes=dict.fromkeys(("z_item", "pair", "tags", "seen", "a_item"), 99),
    )

    def bags(weighted: bool) -> RaggedColumn:
        lengths = random.integers(0, 4, num_rows)
        total = int(lengths.sum())
        return RaggedColumn(
            values=random.integers(0, 99, total, dtype=np.int32),
            row_splits=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            weights=random.random(total, dtype=np.float32) if weighted else None,
        )

    dense = np.stack([np.arange(num_rows), random.random(num_rows)], axis=1).astype(np.float32)
    columns = Columns(
        dense=dense,
        labels=random.integers(0, 2, (num_rows, 2)).astype(np.float32),
        ids=random.integers(0, 99, (num_rows, 4), dtype=np.int32),
        weights=random.random((num_rows, 3), dtype=np.float32),
        ragged={"tags": bags(False), "seen": bags(True)},
        keys={"user": np.array([f"u{i % 3}" for i in range(num_rows)], object), "row_id": np.arange(num_rows)},
    )
    return spec, columns


def plain_columns(num_rows: int) -> tuple[FeatureSpec, Columns]:
    """The number of the row as the only feature: light pipelines for tests of order alone."""
    spec = FeatureSpec(labels=("click",), dense=(DenseColumn(name="plain"),))
    columns = Columns(
        dense=np.arange(num_rows, dtype=np.float32)[:, None],
        labels=np.zeros((num_rows, 1), np.float32),
        ids=np.zeros((num_rows, 0), np.int32),
        weights=np.zeros((num_rows, 0), np.float32),
        keys={"row_id": np.arange(num_rows)},
    )
    return spec, columns
