"""A small prepared folder, written by the rules of the training format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfdlrm.data.prepared_folders import FORMAT_NAME, FORMAT_VERSION, MANIFEST_FILE
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec
from tfdlrm.yaml_text import dump_yaml

SPEC = FeatureSpec(
    labels=("click", "buy"),
    dense=(DenseColumn(name="price", transform="log1p"), DenseColumn(name="age", transform="standardize", missing=30)),
    categorical=(
        CategoricalColumn(name="city", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="code", encoding="hex"),
        CategoricalColumn(name="pair", hotness=2),
        CategoricalColumn(name="tags", hotness=None, weights="tag_weights"),
    ),
    keys=("day",),
    vocabulary_sizes={"city": 4, "code": 3, "pair": 50, "tags": 20},
)

CITIES = ("Paris", "", "Rio\\nde Janeiro")
CODES = ("000000ff", "00000000", "0000abcd")

Part = dict[str, list]


def rows(num_rows: int, seed: int, *, first_day: int = 0) -> Part:
    """Columns of one part, lists for bags."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 4, num_rows)
    return {
        "click": random.integers(0, 2, num_rows).tolist(),
        "buy": random.integers(0, 2, num_rows).tolist(),
        "price": random.random(num_rows).astype(np.float32).tolist(),
        "age": random.normal(size=num_rows).astype(np.float32).tolist(),
        "city": random.integers(0, 4, num_rows).tolist(),
        "code": random.integers(0, 3, num_rows).tolist(),
        "pair": random.integers(0, 50, (num_rows, 2)).tolist(),
        "tags": [random.integers(0, 20, length).tolist() for length in lengths],
        "tag_weights": [random.random(length).astype(np.float32).tolist() for length in lengths],
        "day": (first_day + np.arange(num_rows) // 10).tolist(),
        "row_id": list(range(num_rows)),
    }


TYPES = {
    "click": pa.uint8(),
    "buy": pa.uint8(),
    "price": pa.float32(),
    "age": pa.float32(),
    "city": pa.uint8(),
    "code": pa.uint16(),
    "pair": pa.list_(pa.int32(), 2),
    "tags": pa.large_list(pa.int64()),
    "tag_weights": pa.large_list(pa.float32()),
    "day": pa.int64(),
    "row_id": pa.int64(),
}


def write(
    folder: Path,
    parts: Mapping[str, Part],
    *,
    rows_per_file: int = 25,
    rows_per_batch: int = 7,
    leave_out: Sequence[str] = (),
) -> Path:
    """Write the folder; returns it."""
    SPEC.save(folder)
    (folder / "vocabularies").mkdir(exist_ok=True)
    vocabularies = {}
    for table, values, has_oov in (("city", CITIES, True), ("code", CODES, False)):
        file = f"vocabularies/{table}.txt"
        (folder / file).write_text("".join(f"{value}\n" for value in values))
        vocabularies[table] = {"file": file, "values": len(values), "has_oov": has_oov}
    (folder / "preprocessing.yaml").write_text(dump_yaml({"id_modulo": None, "vocabularies": vocabularies}))
    entries: dict[str, dict] = {}
    for part, columns in parts.items():
        (folder / part).mkdir(exist_ok=True)
        arrays = {name: pa.array(cells, TYPES[name]) for name, cells in columns.items() if name not in leave_out}
        table = pa.table(arrays)
        if table.num_rows:
            entries[part] = {"rows": table.num_rows, "files": []}
        for number, start in enumerate(range(0, max(1, table.num_rows), rows_per_file)):
            piece = table.slice(start, rows_per_file)
            file = str(folder / part / f"part-{number:05}.arrow")
            with pa.OSFile(file, "wb") as stream, pa.ipc.new_file(stream, piece.schema) as writer:
                writer.write_table(piece, max_chunksize=rows_per_batch)
            if table.num_rows:
                entries[part]["files"].append({"name": f"{part}/part-{number:05}.arrow", "rows": piece.num_rows})
    total = sum(entry["rows"] for entry in entries.values())
    books = {"read": total, "written": total, "sampled_out": 0, "quarantined": 0}
    manifest = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "config": {"output": "arrow"},
        "parts": entries,
        "books": books,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder
