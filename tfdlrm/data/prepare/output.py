"""The last pass: encoded rows, part by part, to Arrow, Parquet or TFRecord files, of sizes that the rows alone tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.data.prepare.config import OutputFormat
from tfdlrm.data.prepare.encode import BlockEncoder
from tfdlrm.data.prepare.stage import write_arrow
from tfdlrm.data.prepared_folders import PARTS
from tfdlrm.data.pyarrow_extra import pa, pq
from tfdlrm.files import atomic_path, sha256_of
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


FILE_BYTES = 2**26  # about so large
_MOST_ROWS, _LEAST_ROWS = 2**19, 2**12
SUFFIXES: dict[str, str] = {"arrow": ".arrow", "parquet": ".parquet", "tfrecord": ".tfrecord"}


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file of a part.

    Args:
        name: below the output folder.
        rows, bytes, sha256: of it.
    """

    name: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, rows: int) -> OutputFile:
        """A file that is written, in the folder of its part."""
        return cls(name=f"{path.parent.name}/{path.name}", rows=rows, bytes=path.stat().st_size, sha256=sha256_of(path))


def part_file(output: Path, part: str, number: int, form: OutputFormat = "arrow") -> Path:
    """Where a file of a part goes; its folder is made."""
    path = output / part / f"part-{number:05d}{SUFFIXES[form]}"
    path.parent.mkdir(exist_ok=True)
    return path


def parts_of_manifest(files: Mapping[str, Sequence[OutputFile]]) -> dict[str, Any]:
    """The entry `parts` of a manifest."""
    return {
        part: {"rows": sum(file.rows for file in own), "files": [vars(file) for file in own]}
        for part, own in files.items()
    }


def rows_a_file(encoder: BlockEncoder, codes: Sequence[np.ndarray]) -> int:
    """A power of two, so that a file is about `FILE_BYTES` large; by the first block that has rows of a part."""
    for block, own in enumerate(codes):
        used = own < len(PARTS)
        if used.any():
            table = encoder.table(block, used)
            row_bytes = max(1.0, table.nbytes / table.num_rows)
            return int(np.clip(2 ** int(np.log2(FILE_BYTES / row_bytes)), _LEAST_ROWS, _MOST_ROWS))
    return _LEAST_ROWS


def write_parts(
    encoder: BlockEncoder,
    codes: Sequence[np.ndarray],
    output: Path,
    form: OutputFormat,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> dict[str, list[OutputFile]]:
    """All files of all parts; files that are there already are kept: nothing half-written has a final name.

    Args:
        encoder: gives the rows of a block.
        codes: the part of every row, block by block.
        output: where the parts' folders go.
        form: of the files.
        on_rows: told how many rows were written, again and again.
    """
    size = rows_a_file(encoder, codes)
    tasks = []
    for code, part in enumerate(PARTS):
        counts = np.array([np.count_nonzero(own == code) for own in codes], np.int64)
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        for number, start in enumerate(range(0, total, size)):
            path = part_file(output, part, number, form)
            tasks.append((part, path, code, start, min(start + size, total), ends))

    def write(task: tuple[str, Path, int, int, int, np.ndarray]) -> tuple[str, OutputFile]:
        part, path, code, start, stop, ends = task
        if not path.exists():
            table = _rows_of_part(encoder, codes, code, start, stop, ends)
            with atomic_path(path) as partial:
                _WRITERS[form](partial, table)
        on_rows(stop - start)
        return part, OutputFile.of(path, stop - start)

    files: dict[str, list[OutputFile]] = {part: [] for part in PARTS}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for part, file in pool.map(write, tasks):
            files[part].append(file)
    return {part: own for part, own in files.items() if own}


def _rows_of_part(
    encoder: BlockEncoder, codes: Sequence[np.ndarray], code: int, start: int, stop: int, ends: np.ndarray
) -> pa.Table:
    """Rows [start, stop) of a part; only the blocks that hold them are read."""
    first, last = np.searchsorted(ends, [start, stop - 1], side="right")
    tables = []
    for block in range(int(first), int(last) + 1):
        mine = np.flatnonzero(codes[block] == code)
        begin = int(ends[block]) - len(mine)
        mine = mine[max(start - begin, 0) : stop - begin]
        if len(mine):
            chosen = np.zeros(len(codes[block]), bool)
            chosen[mine] = True
            tables.append(encoder.table(block, chosen))
    return pa.concat_tables(tables).combine_chunks()


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


_WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {
    "arrow": write_arrow,
    "parquet": _write_parquet,
    "tfrecord": write_tfrecords,
}
