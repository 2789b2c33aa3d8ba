"""Rows as TFRecord files of `tf.train.Example`, for TFX and other readers of those."""

from __future__ import annotations

from pathlib import Path

from tfdlrm.data.pyarrow_extra import pa

_PIECE_ROWS = 2**14


def write_tfrecords(path: Path, table: pa.Table) -> None:
    """One `Example` a row, a feature a column: integers as int64 lists, floats as float lists, text as bytes.

    Python makes every `Example`, so this is the slowest of the formats, and reading it back the slowest, too.
    """
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
