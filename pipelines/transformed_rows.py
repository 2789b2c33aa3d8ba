"""Transformed examples as prepared data, which training maps into memory, shuffles and resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.tfx_extra import tft
from tfdlrm.checks import quoted
from tfdlrm.data.prepare.encode import narrow_type
from tfdlrm.data.prepare.output import FILE_BYTES, OutputFile, part_file, parts_of_manifest
from tfdlrm.data.prepare.stage import bags_of, write_arrow
from tfdlrm.data.prepare.work import write_json
from tfdlrm.data.prepared_folders import FORMAT_NAME, FORMAT_VERSION, MANIFEST_FILE, key_column
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.schema import ROW_ID, CategoricalColumn, FeatureSpec

_BATCH_ROWS = 4096


def write_prepared(
    folder: Path, parts: Mapping[str, Sequence[str]], output: tft.TFTransformOutput, preprocessing: Preprocessing
) -> Path:
    """Writes transformed examples as `tfdlrm data prepare` writes rows; they are in the order of the files.

    Args:
        folder: of the prepared data; made where it does not exist. The manifest is written last.
        parts: "train" and, where there are such rows, "validation" and "test" -> files, or patterns of files, of
            compressed TFRecords.
        output: of Transform, for the types of the columns.
        preprocessing: what encoded them.

    Returns:
        `folder`.

    Raises:
        ValueError: the training part has no row, or an example has a value without an id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing.save(folder)
    parser = output.transformed_feature_spec()
    files: dict[str, list[OutputFile]] = {}
    sources: dict[str, list[str]] = {}
    number = 0
    for part, patterns in parts.items():
        sources[part] = sorted(str(file) for pattern in patterns for file in tf.io.gfile.glob(pattern))
        found: list[OutputFile] = []
        for table in _tables(sources[part], parser, preprocessing.spec, number):
            path = part_file(folder, part, len(found))
            write_arrow(path, table)
            found.append(OutputFile.of(path, table.num_rows))
            number += table.num_rows
        if found:
            files[part] = found
    if "train" not in files:
        raise ValueError(f"{', '.join(parts['train'])}: the training part has no row. Give the pipeline more rows.")
    manifest = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "command": ["transformed examples"],
        "config": {"output": "arrow"},
        "schema": "schema.yaml",
        "books": {"read": number, "written": number, "quarantined": 0, "sampled_out": 0},
        "parts": parts_of_manifest(files),
        "sources": [{"path": path} for own in sources.values() for path in own],
        "sampling": {"keep_negatives": 1.0, "logit_offset": 0.0},
    }
    write_json(folder / MANIFEST_FILE, manifest)
    return folder


def _tables(files: Sequence[str], parser: Mapping[str, Any], spec: FeatureSpec, number: int) -> Iterator[pa.Table]:
    """Rows of some files, a table for each file to be written."""
    if not files:
        return
    batches = tf.data.TFRecordDataset(files, "GZIP").batch(_BATCH_ROWS).prefetch(2)
    pending: list[pa.Table] = []
    size = 0
    for serialized in batches:
        table = _table(tf.io.parse_example(serialized, parser), spec, number)
        number += table.num_rows
        pending.append(table)
        size += table.nbytes
        if size >= FILE_BYTES:
            yield pa.concat_tables(pending).combine_chunks()
            pending, size = [], 0
    if pending:
        yield pa.concat_tables(pending).combine_chunks()


def _table(columns: Mapping[str, Any], spec: FeatureSpec, number: int) -> pa.Table:
    """A batch in the format of prepared data.

    Args:
        columns: parsed.
        spec: the schema.
        number: of the first row.
    """
    arrays: dict[str, pa.Array] = {}
    for name in spec.labels:
        arrays[name] = pa.array(columns[name].numpy().astype(np.uint8))
    for dense in spec.dense:
        arrays[dense.name] = pa.array(columns[dense.name].numpy())
    for column in spec.categorical:
        arrays[column.name] = _ids(columns[column.name], column, spec)
        if column.weights:
            arrays[column.weights] = _bags(columns[column.weights], column, np.dtype(np.float32))
    for name in spec.keys:
        key = key_column(spec, name)
        if name != ROW_ID:
            values = columns[key].numpy()
            text = values.dtype == object
            arrays[key] = pa.array(values.tolist(), pa.large_string()) if text else pa.array(values.astype(np.float64))
    num_rows = len(columns[spec.label].numpy())
    arrays[ROW_ID] = pa.array(np.arange(number, number + num_rows))
    return pa.table(arrays)


def _ids(values: Any, column: CategoricalColumn, spec: FeatureSpec) -> pa.Array:
    flat = values.flat_values if isinstance(values, tf.RaggedTensor) else values
    if column.encoding in ("vocabulary", "hex") and (flat.numpy() < 0).any():
        raise ValueError(
            f"column {quoted(column.name)}: an example has a value that the training examples do not have. Set "
            "id_policy: oov for the column."
        )
    return _bags(values, column, narrow_type(spec, column))


def _bags(values: Any, column: CategoricalColumn, dtype: np.dtype) -> pa.Array:
    if isinstance(values, tf.RaggedTensor):
        return bags_of(pa.array(values.flat_values.numpy().astype(dtype)), values.row_lengths().numpy())
    flat = pa.array(values.numpy().astype(dtype).reshape(-1))
    return flat if column.hotness == 1 else pa.FixedSizeListArray.from_arrays(flat, column.hotness)
