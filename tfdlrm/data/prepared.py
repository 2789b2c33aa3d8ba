"""Prepared data: reading the folders that `tfdlrm data prepare` writes.

A part's files are Arrow IPC files, mapped into memory: nothing is parsed, and what is read once stays in the operating
system's cache.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.data.columns import (
    ROW_ID,
    Array,
    Columns,
    RaggedColumn,
    aligned_array,
    fixed_columns,
    id_dtype,
    weighted_columns,
)
from tfdlrm.data.dataset import Books
from tfdlrm.data.prepared_folders import MANIFEST_FILE
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.splits import Splits
from tfdlrm.data.streaming import EpochRows, StreamingDataset
from tfdlrm.native.columns import PartedColumn, RowPacker
from tfdlrm.schema import CategoricalColumn, FeatureSpec

FORMAT_NAME, FORMAT_VERSION = "tfdlrm-prepared", 1
KEY_PREFIX = "key:"
PARTS = ("train", "validation", "test")

# A shuffled window is 64 blocks from all over the part, 262,144 rows.
BLOCK_ROWS = 2**12
SHUFFLE_BLOCKS = 64


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of prepared data.

    Raises:
        FileNotFoundError: the folder has none: it holds something else, or its preparation was not finished.
        ValueError: it is damaged, or of another version.
    """
    file = Path(folder) / MANIFEST_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no prepared data there. Make them: tfdlrm data prepare SOURCE {folder}; a preparation that was "
            "stopped goes on when its command is run again."
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        name, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a manifest of prepared data ({error}). Prepare the data again.") from error
    if (name, version) != (FORMAT_NAME, FORMAT_VERSION):
        raise ValueError(
            f"{file}: format {name!r}, version {version}; this program reads {FORMAT_NAME!r}, version "
            f"{FORMAT_VERSION}. Prepare the data again."
        )
    return manifest


def key_column(spec: FeatureSpec, name: str) -> str:
    """Where a key is kept: under its own name, unless a feature or label has that."""
    taken = {*spec.labels, *(column.name for column in spec.dense), *spec.feature_names}
    return KEY_PREFIX + name if name in taken else name


class PreparedRows:
    """Rows [start, stop) of one part, in blocks; a `BlockSource`.

    Args:
        files: Arrow files of the part, in order.
        rows: of each file.
        spec: the columns.
        start, stop: which of the rows; default all.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged; it is named.
    """

    block_rows = BLOCK_ROWS
    shuffle_blocks = SHUFFLE_BLOCKS

    def __init__(
        self, files: Sequence[Path], rows: Sequence[int], spec: FeatureSpec, start: int = 0, stop: int | None = None
    ) -> None:
        self.spec = spec
        self._ends = np.cumsum(np.asarray(rows, np.int64))
        self._start = start
        self._stop = int(self._ends[-1]) if stop is None else stop
        self.num_rows = self._stop - start
        self._files = [_File(path, count, spec) for path, count in zip(files, rows, strict=True)]
        self._fixed, self._weighted = fixed_columns(spec), weighted_columns(spec)
        self._id_dtype = id_dtype(spec)
        self._columns: dict[str, PartedColumn] = {}

    def read_block(self, block: int) -> Columns:
        """The rows of one block."""
        return self.read_blocks([block])

    def read_blocks(self, blocks: Sequence[int], *, keys: bool = True) -> Columns:
        """The rows of some blocks, one after another; see `BlockSource`."""
        spans = []
        for block in blocks:
            low = self._start + block * self.block_rows
            spans.extend(self._spans(low, min(low + self.block_rows, self._stop)))
        total = sum(stop - start for _, start, stop in spans)
        spec = self.spec
        width = sum(place.stop - place.start for place in self._fixed.values())
        weight_width = sum(place.stop - place.start for place in self._weighted.values())
        dense = aligned_array((total, spec.num_dense), np.float32)
        labels = aligned_array((total, len(spec.labels)), np.float32)
        ids = aligned_array((total, width), self._id_dtype)
        weights = aligned_array((total, weight_width), np.float32)
        position = 0
        for file, start, stop in spans:
            window = slice(position, position + stop - start)
            file.fill(start, dense[window], labels[window], ids[window], weights[window])
            position += stop - start
        ragged = {
            column.name: _join([file.ragged(column, start, stop, self._id_dtype) for file, start, stop in spans])
            for column in spec.categorical
            if column.hotness is None
        }
        named = {
            name: np.concatenate([file.key(key_column(spec, name), start, stop) for file, start, stop in spans])
            for name in (dict.fromkeys((*spec.keys, ROW_ID)) if keys else ())
        }
        return Columns(dense=dense, labels=labels, ids=ids, weights=weights, ragged=ragged, keys=named)

    def gather(self, numbers: Array) -> tuple[dict[str, Array], Array]:
        """Any rows, feature by feature, as `plain_arrays`; the schema must be without ragged columns and weights.

        Args:
            numbers: int64 [n], rows of this source.
        """
        spec, rows = self.spec, len(numbers)
        place = numbers + self._start
        part_of = np.searchsorted(self._ends, place, side="right").astype(np.int32)
        begins = np.concatenate([[0], self._ends])[:-1]
        row_of = (place - begins[part_of]).astype(np.int32)
        features: dict[str, Array] = {}
        if spec.num_dense:
            features["dense"] = aligned_array((rows, spec.num_dense), np.float32)
            for column, dense in enumerate(spec.dense):
                self._parted(dense.name).take(part_of, row_of, features["dense"][:, column])
        for categorical in spec.categorical:
            shape = (rows,) if categorical.hotness == 1 else (rows, categorical.hotness or 0)
            features[categorical.name] = aligned_array(shape, self._id_dtype)
            self._parted(categorical.name).take(part_of, row_of, features[categorical.name])
        labels = aligned_array((rows, len(spec.labels)), np.float32)
        for column, name in enumerate(spec.labels):
            self._parted(name).take(part_of, row_of, labels[:, column])
        return features, labels

    def _parted(self, name: str) -> PartedColumn:
        if name not in self._columns:
            self._columns[name] = PartedColumn([file.column(name) for file in self._files])
        return self._columns[name]

    def _spans(self, start: int, stop: int) -> list[tuple[_File, int, int]]:
        """Rows [start, stop) of the part as (file, first row of the file, last + 1)."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        spans = []
        for number in range(int(first), int(last) + 1):
            before = int(self._ends[number - 1]) if number else 0
            low, high = max(start - before, 0), min(stop, int(self._ends[number])) - before
            spans.append((self._files[number], low, high))
        return spans


class _File:
    """One mapped file."""

    def __init__(self, path: Path, rows: int, spec: FeatureSpec) -> None:
        self._path, self._rows, self._spec = path, rows, spec
        if not path.is_file():
            raise FileNotFoundError(f"{path}: the manifest names it and it is not there. Prepare the data again.")

    @functools.cached_property
    def _arrays(self) -> dict[str, Any]:
        """NumPy views of the columns; a pair (values, offsets) where bags are ragged; Arrow arrays of text."""
        try:
            with pa.memory_map(str(self._path)) as stream:
                table = pa.ipc.open_file(stream).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{self._path}: not a whole Arrow file ({error}). Prepare the data again.") from error
        if table.num_rows != self._rows:
            raise ValueError(
                f"{self._path}: {table.num_rows} rows where the manifest says {self._rows}. Prepare the data again."
            )
        return {name: _view(table[name].chunk(0)) for name in table.column_names}

    def column(self, name: str) -> Any:
        """A whole column, mapped."""
        arrays = self._arrays
        if name not in arrays:
            raise ValueError(f"{self._path}: column {name!r} of the schema is missing. Prepare the data again.")
        return arrays[name]

    @functools.cached_property
    def _packers(self) -> tuple[RowPacker, RowPacker, RowPacker, RowPacker]:
        """Of dense columns, labels, ids of fixed hotness, and their weights."""
        spec = self._spec
        fixed = [column for column in spec.categorical if column.hotness is not None]
        groups = (
            [column.name for column in spec.dense],
            spec.labels,
            [column.name for column in fixed],
            [column.weights for column in fixed if column.weights],
        )
        dense, labels, ids, weights = (RowPacker([self.column(name) for name in names]) for names in groups)
        return dense, labels, ids, weights

    def fill(self, start: int, dense: Array, labels: Array, ids: Array, weights: Array) -> None:
        """Write rows from `start` on into packed arrays of as many rows."""
        for packer, out in zip(self._packers, (dense, labels, ids, weights), strict=True):
            packer.pack(start, out)

    def ragged(self, column: CategoricalColumn, start: int, stop: int, dtype: np.dtype) -> RaggedColumn:
        """Bags [start, stop) of one column."""
        values, offsets = self.column(column.name)
        low, high = offsets[start], offsets[stop]
        weights = None
        if column.weights:
            weights = self.column(column.weights)[0][low:high]
        return RaggedColumn(
            values=values[low:high].astype(dtype), row_splits=offsets[start : stop + 1] - low, weights=weights
        )

    def key(self, name: str, start: int, stop: int) -> Array:
        """Keys of rows [start, stop)."""
        values = self.column(name)
        if isinstance(values, np.ndarray):
            return values[start:stop]
        return values.slice(start, stop - start).to_numpy(zero_copy_only=False)


def _view(array: pa.Array) -> Any:
    if pa.types.is_large_string(array.type):
        return array
    if pa.types.is_large_list(array.type):
        return array.values.to_numpy(), array.offsets.to_numpy()
    if pa.types.is_fixed_size_list(array.type):
        return array.values.to_numpy().reshape(len(array), -1)
    return array.to_numpy()


def _join(parts: Sequence[RaggedColumn]) -> RaggedColumn:
    ends = np.cumsum([0, *(part.row_splits[-1] for part in parts)])
    weights = [part.weights for part in parts if part.weights is not None]
    return RaggedColumn(
        values=np.concatenate([part.values for part in parts]),
        row_splits=np.concatenate(
            [[0], *(part.row_splits[1:] + end for part, end in zip(parts, ends[:-1], strict=True))]
        ).astype(np.int64),
        weights=np.concatenate(weights) if weights else None,
    )


class PreparedDataset(StreamingDataset):
    """Rows of `PreparedRows`; batches are gathered from the mapped columns, without a packed copy in between.

    Args:
        source: the rows.
    """

    source: PreparedRows
    _parallel_pieces = 2

    def _plain_rows(self, rows: EpochRows, start: int, stop: int) -> tuple:
        return self.source.gather(rows.numbers(start, stop))


def shard_bounds(num_rows: int, shard: tuple[int, int]) -> tuple[int, int]:
    """Rows [start, stop) of one of several shards: contiguous, each row in exactly one, sizes differ by at most 1.

    Args:
        num_rows: of the part.
        shard: (index, count).

    Raises:
        ValueError: the index is not within the count, or there are more shards than rows.

    Example:
        >>> [shard_bounds(10, (index, 3)) for index in range(3)]
        [(0, 3), (3, 6), (6, 10)]
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(
            f"shard=({index}, {count}) is not possible. Give an index from 0 to {count - 1} and the count."
        )
    if num_rows < count:
        raise ValueError(f"shard=({index}, {count}): {num_rows} rows cannot be divided so. Use fewer workers.")
    return num_rows * index // count, num_rows * (index + 1) // count


def prepared_dataset(
    folder: str | os.PathLike[str],
    part: str = "train",
    *,
    shard: tuple[int, int] | None = None,
    max_rows: int | None = None,
) -> StreamingDataset:
    """One part of prepared data as a `Dataset`.

    Args:
        folder: what `tfdlrm data prepare` wrote.
        part: train, validation or test.
        shard: (index, count), the rows of one worker; None for all.
        max_rows: only the first so many rows.

    Raises:
        FileNotFoundError, ValueError: it is not prepared data, has no such part, or is of another file format.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if part not in manifest["parts"]:
        raise ValueError(f"{folder}: has no {part!r} part, but {', '.join(manifest['parts'])}. Choose one of these.")
    form = manifest["config"]["output"]
    if form != "arrow":
        raise ValueError(
            f"{folder}: holds {form} files, for other programs. Prepare with --output arrow to train on it."
        )
    entry = manifest["parts"][part]
    spec = FeatureSpec.load(folder)
    total = entry["rows"] if max_rows is None else min(entry["rows"], max_rows)
    start, stop = (0, total) if shard is None else shard_bounds(total, shard)
    files = [folder / file["name"] for file in entry["files"]]
    return PreparedDataset(PreparedRows(files, [file["rows"] for file in entry["files"]], spec, start, stop))


def open_part(path: str | os.PathLike[str], preprocessing: Preprocessing) -> StreamingDataset:
    """The rows to evaluate or predict: the test part of prepared data, or the part whose folder is named.

    Raises:
        ValueError: they were encoded otherwise than the model's training rows.
    """
    folder, part = Path(path), "test"
    if not (folder / MANIFEST_FILE).exists() and (folder.parent / MANIFEST_FILE).exists():
        folder, part = folder.parent, folder.name
    dataset = prepared_dataset(folder, part)
    if dataset.spec != preprocessing.spec:
        raise ValueError(
            f"{folder}: prepared with another schema or other vocabularies than the model was trained on. Prepare the "
            "rows with --vocabularies of the training data."
        )
    return dataset


def open_prepared(folder: str | os.PathLike[str], max_rows: int | None = None) -> Splits:
    """All parts of prepared data, with what encoded them."""
    manifest = read_manifest(folder)
    parts = {part: prepared_dataset(folder, part, max_rows=max_rows) for part in manifest["parts"]}
    if "train" not in parts:
        raise ValueError(f"{folder}: has no training part, but {', '.join(parts)}. Prepare it with one.")
    books: Mapping[str, int] = manifest["books"]
    used = sum(part.num_rows for part in parts.values())
    unused = books["written"] - used  # by max_rows
    return Splits(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        preprocessing=Preprocessing.load(folder),
        books=Books(read=books["read"] - unused - books["sampled_out"], used=used, set_aside=books["quarantined"]),
    )
