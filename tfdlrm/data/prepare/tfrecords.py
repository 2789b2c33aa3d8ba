"""Rows as TFRecord files of `tf.train.Example`, for TFX and other readers of those."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.native.examples import ExampleColumn, can_write_examples, example_records

_PIECE_ROWS = 2**14


def write_tfrecords(path: Path, table: pa.Table) -> None:
    """One `Example` a row, a feature a column: integers as int64 lists, floats as float lists, text as bytes.

    Native code where it may be used, else TensorFlow; the bytes are the same.
    """
    table = pa.table({name: _in_wire_type(table[name].combine_chunks()) for name in table.column_names})
    if not can_write_examples():
        _write_by_tensorflow(path, table)
        return
    columns = [_column(name, table[name].chunk(0)) for name in table.column_names] if table.num_rows else []
    with path.open("wb") as file:
        for records in example_records(columns, table.num_rows):
            file.write(records)


def _in_wire_type(array: pa.Array) -> pa.Array:
    """Numbers in a type that native code knows, which is what readers get of them."""
    if pa.types.is_nested(array.type):
        return array
    if pa.types.is_floating(array.type):
        return array.cast(pa.float32(), safe=False)
    if pa.types.is_integer(array.type) and array.type not in (pa.uint8(), pa.uint16(), pa.int32(), pa.int64()):
        return array.cast(pa.int64())
    return array


def _column(name: str, array: pa.Array) -> ExampleColumn:
    if pa.types.is_large_list(array.type):
        return ExampleColumn(name, _in_wire_type(array.values).to_numpy(), None, array.offsets.to_numpy())
    if pa.types.is_fixed_size_list(array.type):
        return ExampleColumn(name, _in_wire_type(array.flatten()).to_numpy(), array.type.list_size)
    if not pa.types.is_large_string(array.type):
        return ExampleColumn(name, array.to_numpy())
    _, offsets, text = array.buffers()
    places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    found = np.zeros(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)
    return ExampleColumn(name, found, text_offsets=places)


def _write_by_tensorflow(path: Path, table: pa.Table) -> None:
    import tensorflow as tf

    kinds = {name: _kind(table.schema.field(name).type) for name in table.column_names}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for start in range(0, table.num_rows, _PIECE_ROWS):
            piece = table.slice(start, _PIECE_ROWS)
            columns = {name: piece[name].to_pylist() for name in table.column_names}
            for row in range(piece.num_rows):
                example = tf.train.Example()
                feature = example.features.feature
                for name, values in columns.items():
                    value = values[row]
                    entries = value if isinstance(value, list) else [value]
                    if kinds[name] == "int64":
                        feature[name].int64_list.value.extend(entries)
                    elif kinds[name] == "float":
                        feature[name].float_list.value.extend(entries)
                    else:
                        feature[name].bytes_list.value.extend(entry.encode() for entry in entries)
                writer.write(example.SerializeToString(deterministic=True))


def _kind(dtype: pa.DataType) -> str:
    if pa.types.is_nested(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype):
        return "int64"
    return "float" if pa.types.is_floating(dtype) else "bytes"
