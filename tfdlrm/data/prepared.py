"""Prepared data: reading the folders that `tfdlrm data prepare` writes.

A part's files are Arrow IPC files, mapped into memory: nothing is parsed, and what is read once stays in the operating
system's cache. A column's form is compared with the schema when it is first asked for, and its ids as they are read:
a file may have been written by anyone.
"""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.data.columns import (
    Array,
    Columns,
    aligned_array,
    concatenate_ragged,
    fixed_columns,
    id_dtype,
    weighted_columns,
)
from tfdlrm.data.dataset import Books
from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.prepared_file import PreparedFile, value_limit
from tfdlrm.data.prepared_folders import (
    MANIFEST_FILE,
    is_prepared,
    key_column,
    part_folders,
    read_manifest,
    read_schema,
    refuse_other_output,
)
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.splits import Splits
from tfdlrm.data.streaming import EpochRows, StreamingDataset
from tfdlrm.files import path_inside
from tfdlrm.native.columns import OutOfRangeError, PartedColumn
from tfdlrm.schema import ROW_ID, FeatureSpec

# A shuffled window is 64 blocks from all over the part, 262,144 rows.
BLOCK_ROWS = 2**12
SHUFFLE_BLOCKS = 64


class PreparedRows:
    """Rows [start, stop) of one part, in blocks; a `BlockSource`.

    Args:
        files: of the part, in order.
        spec: the columns.
        start, stop: which of the rows; default all.

    Raises:
        ValueError: from what reads, a file is damaged; it is named.
    """

    block_rows = BLOCK_ROWS
    shuffle_blocks = SHUFFLE_BLOCKS

    def __init__(
        self, files: Sequence[PreparedFile], spec: FeatureSpec, start: int = 0, stop: int | None = None
    ) -> None:
        self.spec = spec
        self._ends = np.cumsum([file.num_rows for file in files], dtype=np.int64)
        self._start = start
        self._stop = int(self._ends[-1]) if stop is None else stop
        self.num_rows = self._stop - start
        self._files = list(files)
        self._fixed, self._weighted = fixed_columns(spec), weighted_columns(spec)
        self._dense_names = [column.name for column in spec.dense]
        self._weight_names = [column.weights for column in spec.categorical if column.name in self._weighted]
        self._id_dtype = id_dtype(spec)
        self._columns: dict[str, PartedColumn] = {}

    def read_block(self, block: int) -> Columns:
        """The rows of one block."""
        return self.read_blocks([block])

    def read_blocks(self, blocks: Sequence[int], *, keys: bool = True, pool: Executor | None = None) -> Columns:
        """The rows of some blocks, one after another; see `BlockSource`. A pool reads several at once."""
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

        def fill(span: tuple[int, int, int], position: int) -> None:
            # block by block: the rows of one stay in the processor's cache while its columns are written into them
            window = slice(position, position + span[2] - span[1])
            self._copy(self._dense_names, span, dense[window])
            self._copy(spec.labels, span, labels[window])
            self._copy(self._fixed, span, ids[window])
            self._copy(self._weight_names, span, weights[window])

        positions = np.cumsum([0, *(stop - start for _, start, stop in spans)]).tolist()
        collections.deque((map if pool is None else pool.map)(fill, spans, positions), maxlen=0)
        files = [(self._files[number], start, stop) for number, start, stop in spans]
        ragged = {
            column.name: concatenate_ragged(
                [file.ragged(column, start, stop, self._id_dtype) for file, start, stop in files]
            )
            for column in spec.categorical
            if column.hotness is None
        }
        named = {
            name: np.concatenate([file.key(key_column(spec, name), start, stop) for file, start, stop in files])
            for name in (dict.fromkeys((*spec.keys, ROW_ID)) if keys else ())
        }
        return Columns(dense=dense, labels=labels, ids=ids, weights=weights, ragged=ragged, keys=named)

    def read_all(self, pool: Executor) -> Columns:
        """All rows."""
        return self.read_blocks(range(-(-self.num_rows // self.block_rows)), pool=pool)

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
            self._fill(self._dense_names, (part_of, row_of), features["dense"])
        for categorical in spec.categorical:
            shape = (rows,) if categorical.hotness == 1 else (rows, categorical.hotness or 0)
            features[categorical.name] = aligned_array(shape, self._id_dtype)
            self._take(categorical.name, (part_of, row_of), features[categorical.name])
        labels = aligned_array((rows, len(spec.labels)), np.float32)
        self._fill(spec.labels, (part_of, row_of), labels)
        return features, labels

    def _copy(self, names: Iterable[str], span: tuple[int, int, int], out: Array) -> None:
        """Write columns of a span, see `_spans`, side by side into rows."""
        at = 0
        for name in names:
            column = self._parted(name)
            try:
                column.copy(*span, out[:, at : at + column.width])
            except OutOfRangeError:
                self._files[span[0]].refuse_values(name, *span[1:])
                raise
            at += column.width

    def _fill(self, names: Iterable[str], place: tuple[Array, Array], out: Array) -> None:
        """Write columns side by side into rows."""
        at = 0
        for name in names:
            column = self._parted(name)
            self._take(name, place, out[:, at : at + column.width])
            at += column.width

    def _take(self, name: str, place: tuple[Array, Array], out: Array) -> None:
        try:
            self._parted(name).take(*place, out)
        except OutOfRangeError as error:
            number, row = (int(rows[error.position]) for rows in place)
            self._files[number].refuse_values(name, row, row + 1)
            raise

    def _parted(self, name: str) -> PartedColumn:
        if name not in self._columns:
            parts = [file.column(name) for file in self._files]
            for file in self._files:
                file.refuse_other_type(name, parts[0])
            # labels that are not all there are floats, which files have none of
            limit = None if parts[0].dtype == np.float32 else value_limit(self.spec, name)
            self._columns[name] = PartedColumn(parts, limit)
        return self._columns[name]

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Rows [start, stop) of the part as (number of the file, first row of the file, last + 1)."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        spans = []
        for number in range(int(first), int(last) + 1):
            before = int(self._ends[number - 1]) if number else 0
            low, high = max(start - before, 0), min(stop, int(self._ends[number])) - before
            spans.append((number, low, high))
        return spans


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
        raise ValueError(
            f"{folder}: has no {quoted(part)} part, but {', '.join(manifest['parts'])}. Choose one of these."
        )
    refuse_other_output(folder, manifest)
    entry = manifest["parts"][part]
    spec = read_schema(folder)
    total = entry["rows"] if max_rows is None else min(entry["rows"], max_rows)
    start, stop = (0, total) if shard is None else shard_bounds(total, shard)
    files = [PreparedFile(path_inside(folder, file["name"]), file["rows"], spec) for file in entry["files"]]
    rows = PreparedRows(files, spec, start, stop)
    origin = {
        "format": "prepared",
        "folder": str(folder.resolve()),
        "part": part,
        "shard": None if shard is None else list(shard),
        "max_rows": max_rows,
        "manifest": hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest(),
    }
    return PreparedDataset(rows, origin=origin)


def open_part(path: str | os.PathLike[str], preprocessing: Preprocessing) -> StreamingDataset:
    """The rows to evaluate or predict: the test part of prepared data (or its only part), or that of the folder named.

    Raises:
        ValueError: they were encoded otherwise than the model's training rows.
    """
    (one,) = part_folders(path, None)
    folder, part = (one.parent, one.name) if is_prepared(one) else (one, "test")
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


def open(
    path: str | os.PathLike[str],
    batch_size: int,
    *,
    part: Literal["train", "validation", "test"] = "train",
    shuffle: bool = False,
    seed: int = 0,
    shard: tuple[int, int] | tf.distribute.InputContext | None = None,
    epoch: int = 0,
    start_batch: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches `(features, labels)` of prepared data; every iterator gives one epoch, the next one the next epoch.

    Shuffling takes blocks of 4,096 rows in random order and mixes the rows of 64 blocks at a time (262,144 rows), by
    (seed, epoch): a row meets rows from all over the part. Nothing is done in Python for single rows.

    Args:
        path: the folder that `tfdlrm data prepare` wrote.
        batch_size: rows a batch; the last batch of an epoch may have fewer.
        part: which part.
        shuffle, seed: a new order each epoch.
        shard: (index, count), or what `distribute_datasets_from_function` hands over: contiguous rows, each row in
            exactly one shard, sizes that differ by at most one row. Under an input context, `batch_size` is that of
            one replica group, as usual.
        epoch, start_batch: the position to begin at; the batches before it are not read.
        drop_remainder: leave out a last batch of fewer rows.

    Raises:
        FileNotFoundError, ValueError: there are no such prepared data; the message says what is wrong.
        ImportError: pyarrow is not installed.

    Example:
        >>> train = tfdlrm.data.open("kaggle", 2048, shuffle=True, seed=1)
        >>> model.fit(train, epochs=2, shuffle=False)  # the rows are shuffled already
    """

    if isinstance(shard, tf.distribute.InputContext):
        shard = (shard.input_pipeline_id, shard.num_input_pipelines)
    dataset = prepared_dataset(path, part, shard=shard)
    resumable = ResumableInput(
        dataset,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        position=(epoch, start_batch),
        drop_remainder=drop_remainder,
    )
    batches = resumable.dataset()
    if start_batch == 0:
        # told to TensorFlow, it outlives what is done to the dataset later; a first epoch that is shorter cannot be
        batches = batches.apply(tf.data.experimental.assert_cardinality(resumable.num_batches))
    if shard is None:
        return resumable.mark(batches)
    # each worker has its own rows already
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return resumable.mark(batches.with_options(options))
