"""One Arrow file of prepared data, which may have been written by anyone: nothing is read that was not checked."""

from __future__ import annotations

import contextlib
import functools
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfdlrm.checks import quoted, shortened
from tfdlrm.data.columns import Array, RaggedColumn
from tfdlrm.data.prepared_folders import id_limit
from tfdlrm.data.pyarrow_extra import damaged_file, pa
from tfdlrm.schema import CategoricalColumn, FeatureSpec

_LABEL_LIMIT = 2
MEMORY_NAME = "rows in memory"


def value_limit(spec: FeatureSpec, name: str) -> int | None:
    """Values of a prepared column are whole numbers from 0 to below this; None where any may be there."""
    if name in spec.labels:
        return _LABEL_LIMIT
    column = next((column for column in spec.categorical if column.name == name), None)
    return None if column is None else id_limit(spec, column)


class PreparedFile:
    """One mapped file. Its form is compared with the schema column by column, when each is first asked for.

    Args:
        path: of the file.
        rows: that the manifest says it has.
        spec: the columns.

    Raises:
        FileNotFoundError: it is not there.
    """

    def __init__(self, path: Path, rows: int, spec: FeatureSpec) -> None:
        self._path, self.num_rows, self._spec = path, rows, spec
        self._views: dict[str, Any] = {}
        if not path.is_file():
            raise FileNotFoundError(f"{path}: the manifest names it and it is not there. Prepare the data again.")

    @functools.cached_property
    def _table(self) -> pa.Table:
        try:
            table = mapped_table(self._path)
        except FileNotFoundError as error:
            raise self._damaged("it was there and has gone") from error
        if table.num_rows != self.num_rows:
            raise self._damaged(f"{table.num_rows} rows where the manifest says {self.num_rows}")
        return table

    def column(self, name: str) -> Any:
        """A whole column, mapped: an array; a pair (values, offsets) where bags are ragged; an Arrow array of text.

        Raises:
            ValueError: it is missing, or not of the schema's form; names file and column.
        """
        if name not in self._views:
            self._views[name] = _view(self._checked(name))
        return self._views[name]

    def _checked(self, name: str) -> pa.Array:
        if problem := column_problem(self._table.schema, self._spec, name):
            raise self._damaged(problem)
        if self._table[name].num_chunks != 1:
            raise self._damaged(f"column {quoted(name)} is in {self._table[name].num_chunks} pieces, and not in one")
        array = self._table[name].chunk(0)
        lists = pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
        try:
            # reading maps buffers as they are; only this compares their sizes, and offsets, with the rows
            array.validate(full=pa.types.is_large_list(array.type) or pa.types.is_large_string(array.type))
        except pa.ArrowException as error:
            raise self._damaged(f"column {quoted(name)}: {error}") from error
        if array.null_count or (lists and array.values.null_count):
            raise self._damaged(f"column {quoted(name)} has empty cells")
        return array

    def ragged(self, column: CategoricalColumn, start: int, stop: int, dtype: np.dtype) -> RaggedColumn:
        """Bags [start, stop) of one column."""
        values, offsets = self.column(column.name)
        low, high = offsets[start], offsets[stop]
        limit = value_limit(self._spec, column.name)
        if limit is not None and high > low and not 0 <= values[low:high].min() <= values[low:high].max() < limit:
            self.refuse_values(column.name, start, stop)
        weights = None
        if column.weights:
            own, places = self.column(column.weights)
            if not np.array_equal(places[start : stop + 1], offsets[start : stop + 1]):
                raise self._damaged(
                    f"column {quoted(column.weights)} has other bags than {quoted(column.name)}, which it weights"
                )
            weights = own[low:high]
        return RaggedColumn(
            values=values[low:high].astype(dtype), row_splits=offsets[start : stop + 1] - low, weights=weights
        )

    def refuse_values(self, name: str, start: int, stop: int) -> None:
        """Names the first row in [start, stop) with an id, or a label, that no row of the column may have.

        Raises:
            ValueError: there is one.
        """
        found = self.column(name)
        columns = {column.name: column for column in self._spec.categorical}
        limit = value_limit(self._spec, name)
        assert limit is not None
        for row in range(start, stop):
            values = found[0][found[1][row] : found[1][row + 1]] if isinstance(found, tuple) else np.ravel(found[row])
            wrong = values[(values < 0) | (values >= limit)]
            if len(wrong):
                what = f"label {wrong[0]} is not 0 or 1"
                if name in columns:
                    what = f"id {wrong[0]} is not in [0, {limit}), the rows of table {quoted(columns[name].table)}"
                raise self._damaged(f"column {quoted(name)}, row {row}: {what}")

    def key(self, name: str, start: int, stop: int) -> Array:
        """Keys of rows [start, stop)."""
        values = self.column(name)
        if isinstance(values, np.ndarray):
            return values[start:stop]
        return values.slice(start, stop - start).to_numpy(zero_copy_only=False)

    def refuse_other_type(self, name: str, first: np.ndarray) -> None:
        """Refuses a column whose numbers are of another type than those of the part's first file.

        Raises:
            ValueError: names file and column.
        """
        own = self.column(name).dtype
        if own != first.dtype:
            raise self._damaged(f"column {quoted(name)} is {own}, in the part's first file {first.dtype}")

    def _damaged(self, what: str) -> ValueError:
        return ValueError(f"{self._path}: {what}. Prepare the data again.")


class EncodedBlock(PreparedFile):
    """Rows that were encoded in this process: their form is not in doubt. Labels may be float32, with NaN.

    Args:
        table: as an Arrow file of prepared data has them.
        spec: the columns.
    """

    def __init__(self, table: pa.Table, spec: FeatureSpec) -> None:
        self._path, self.num_rows, self._spec = Path(MEMORY_NAME), table.num_rows, spec
        self._views = {}
        self._columns = table

    def _checked(self, name: str) -> pa.Array:
        return self._columns[name].combine_chunks()


def _view(array: pa.Array) -> Any:
    if pa.types.is_large_string(array.type):
        return array
    if pa.types.is_large_list(array.type):
        return array.values.to_numpy(), array.offsets.to_numpy()
    if pa.types.is_fixed_size_list(array.type):
        return array.values.to_numpy()[: len(array) * array.type.list_size].reshape(len(array), -1)
    return array.to_numpy()


def mapped_table(path: Path) -> pa.Table:
    """All rows of an Arrow file whose columns are not compressed, mapped. Their buffers are not compared with anything.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no whole file of this kind; names it.
    """
    refuse_packed(path)
    with arrow_errors(path), pa.memory_map(str(path)) as stream:
        table = pa.ipc.open_file(stream).read_all()
        _ = table.column_names  # decoded when asked for
        return table


def arrow_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    """What pyarrow says of a damaged file, as a ValueError that names it."""
    return damaged_file(path, "a whole Arrow file", "Prepare the data again.")


def column_problem(found: pa.Schema, spec: FeatureSpec, name: str) -> str | None:
    """What is wrong with the form of a file's column, by the schema of the data; None where nothing is."""
    count = found.names.count(name)
    if count != 1:
        return f"column {quoted(name)} of the schema is {'there twice' if count else 'missing'}"
    form, own = _form(spec, name), found.field(name).type
    return (
        None if form.fits(own) else f"column {quoted(name)} is {shortened(str(own))} where the schema asks for {form}"
    )


def refuse_packed(path: Path) -> None:
    """Refuses an Arrow file with compressed columns: they would be unpacked, at any size, before one could look.

    Raises:
        ValueError: it has some, or its footer does not fit; names the file.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            packed = any(_is_packed(data, block) for block in _record_batches(data))
    except (struct.error, ValueError) as error:  # mmap's, of an empty file, is a ValueError
        raise ValueError(f"{path}: not a whole Arrow file ({error}). Prepare the data again.") from error
    if packed:
        raise ValueError(f"{path}: its columns are compressed, and prepared ones are not. Prepare the data again.")


_MAGIC = b"ARROW1"
_FOOTER_BATCHES, _MESSAGE_HEADER, _BATCH_COMPRESSION = 3, 2, 3  # fields of Footer, Message and RecordBatch
_BLOCK_BYTES = 24  # int64 where a message begins, int32 length, padding, int64 length of its body


def _record_batches(data: mmap.mmap) -> list[int]:
    """Where the messages of the record batches begin. https://arrow.apache.org/docs/format/Columnar.html"""
    if data[-len(_MAGIC) :] != _MAGIC:
        raise ValueError("it does not end as one")
    (length,) = struct.unpack_from("<i", data, len(data) - len(_MAGIC) - 4)
    footer = len(data) - len(_MAGIC) - 4 - length
    if length <= 0 or footer < 0:
        raise ValueError("its footer does not fit")
    batches = _field(data, footer + _number(data, "<I", footer), _FOOTER_BATCHES)
    if batches is None:
        return []
    batches += _number(data, "<I", batches)
    count = _number(data, "<I", batches)
    if count * _BLOCK_BYTES > length:
        raise ValueError("its footer does not fit")
    return [_number(data, "<q", batches + 4 + _BLOCK_BYTES * block) for block in range(count)]


def _is_packed(data: mmap.mmap, message: int) -> bool:
    # since format 5 a message's length stands behind four bytes 0xFF
    message += 8 if _number(data, "<i", message) == -1 else 4
    header = _field(data, message + _number(data, "<I", message), _MESSAGE_HEADER)
    if header is None:
        return False
    return _field(data, header + _number(data, "<I", header), _BATCH_COMPRESSION) is not None


def _field(data: mmap.mmap, table: int, number: int) -> int | None:
    """Where a field of a FlatBuffers table is; None where it is left out."""
    lookup = table - _number(data, "<i", table)
    at = 4 + 2 * number
    offset = _number(data, "<H", lookup + at) if at < _number(data, "<H", lookup) else 0
    return table + offset if offset else None


def _number(data: mmap.mmap, form: str, at: int) -> int:
    if at < 0:
        raise ValueError("an offset leads out of it")
    return int(struct.unpack_from(form, data, at)[0])


class _Form(NamedTuple):
    """What a column of the schema is prepared as: single values, or bags of `hotness` (None: of any length)."""

    values: tuple[pa.DataType, ...]
    hotness: int | None = 1

    def __str__(self) -> str:
        single = " or ".join(map(str, self.values))
        return single if self.hotness == 1 else f"bags{f' of {self.hotness}' if self.hotness else ''}, {single}"

    def fits(self, found: pa.DataType) -> bool:
        if self.hotness is None:
            return pa.types.is_large_list(found) and found.value_type in self.values
        if self.hotness > 1:
            is_list = pa.types.is_fixed_size_list(found) and found.list_size == self.hotness
            return is_list and found.value_type in self.values
        return found in self.values


# of ids: as narrow as their table allows, or wider
_IDS = (pa.uint8(), pa.uint16(), pa.int32(), pa.int64())
_FLOATS, _LABELS = (pa.float32(),), (pa.uint8(),)
_KEYS = (
    *(pa.int8(), pa.int16(), pa.uint32(), pa.uint64(), *_IDS),
    *(pa.bool_(), pa.float32(), pa.float64(), pa.large_string()),
)


def _form(spec: FeatureSpec, name: str) -> _Form:
    if name in spec.labels:
        return _Form(_LABELS)
    if any(column.name == name for column in spec.dense):
        return _Form(_FLOATS)
    for column in spec.categorical:
        if name in (column.name, column.weights):
            return _Form(_IDS if name == column.name else _FLOATS, column.hotness)
    return _Form(_KEYS)
