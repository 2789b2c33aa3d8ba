"""The second pass: statistics, vocabularies and ids, table after table, from the staged rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.parts import SAMPLED_OUT, TRAIN, uses_all_rows
from tfdlrm.data.prepare.stage import StagedRows, to_arrow
from tfdlrm.data.prepare.token_ids import Chunk, TokenIds, TokenStream, VocabularyRules, token_ids
from tfdlrm.data.prepare.work import DiskArray, HeldArray, new_array, read_json, write_json
from tfdlrm.data.preprocessing import (
    Preprocessing,
    check_size,
    has_vocabulary,
    needs_edges,
    needs_size,
    vocabulary_file,
)
from tfdlrm.data.pyarrow_extra import pa, pc
from tfdlrm.data.transforms import fit_bins
from tfdlrm.data.vocabulary import UNSEEN, Vocabulary, value_lines
from tfdlrm.files import atomic_path
from tfdlrm.schema import OOV_ID, CategoricalColumn, DenseColumn, FeatureSpec


@dataclass(frozen=True, kw_only=True)
class TableIds:
    """A vocabulary and the ids it gave to the staged tokens.

    Args:
        num_values: without the out-of-vocabulary row.
        has_oov: the table has such a row, 0.
        complete: certainly no token is `UNSEEN`.
        columns: ids of each column's tokens, block after block, from 0; `UNSEEN` where a token has none.
        values: in order of their ids; None where they are in the vocabulary's file.
    """

    num_values: int
    has_oov: bool
    complete: bool
    columns: Mapping[str, DiskArray | HeldArray]
    values: pa.Array | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What the rows told.

    Args:
        spec: every number known: means, standard deviations, table sizes.
        tables: by table, those with a vocabulary.
        starts: by column, int64 [blocks + 1], where each block's tokens begin in its ids.
    """

    spec: FeatureSpec
    tables: dict[str, TableIds] = field(default_factory=dict)
    starts: dict[str, np.ndarray] = field(default_factory=dict)

    def preprocessing(self, id_modulo: int | None) -> Preprocessing:
        """The same for later rows; vocabularies must be in memory."""
        vocabularies = {
            name: Vocabulary(pl.Series(table.values), has_oov=table.has_oov) for name, table in self.tables.items()
        }
        return Preprocessing(spec=self.spec, vocabularies=vocabularies, id_modulo=id_modulo)

    def ids(self, column: CategoricalColumn, block: int) -> np.ndarray:
        """int64, one a token of a block; `UNSEEN` where the column's policy has no id for it."""
        table = self.tables[column.table]
        start, stop = self.starts[column.name][block : block + 2]
        ids = table.columns[column.name].read(int(start), int(stop)).astype(np.int64)
        if not table.has_oov:
            return ids
        known = ids != UNSEEN
        return np.where(known, ids + 1, OOV_ID if column.id_policy == "oov" else UNSEEN)


class Fitter:
    """Learns from the training rows of a preparation.

    A vocabulary holds the tokens of those in order of first appearance (by row, then by column where columns share a
    table), after an out-of-vocabulary row 0 where a column's policy is `oov`. A table of integer ids whose size the
    schema leaves open gets 1 + the largest id. Numbers that the schema gives are kept.

    Args:
        config, spec: what is prepared, and how.
        staged, codes: the rows, and the part of each.
        given: of earlier rows: its numbers are taken, and its values keep their ids.
        folder: for ids on disk; None keeps them, and the vocabularies, in memory.
        output: gets `vocabularies/`.
        budget: bytes that the vocabularies at work may take, on disk.
        on_table: told each table's name when it is done.
    """

    def __init__(
        self,
        config: PrepareConfig,
        spec: FeatureSpec,
        staged: StagedRows,
        codes: Sequence[np.ndarray],
        *,
        given: Preprocessing | None = None,
        folder: Path | None = None,
        output: Path = Path(),
        budget: int = 0,
        on_table: Callable[[str], None] = lambda _table: None,
    ) -> None:
        self._config, self._spec, self._staged, self._codes = config, spec, staged, codes
        self._workers = len(os.sched_getaffinity(0))
        self._folder, self._output, self._on_table = folder, output, on_table
        self._budget = budget // self._workers  # as many tables are at work
        self._given = given
        has_oov = any(column.id_policy == "oov" for column in spec.categorical)
        self._all_rows = uses_all_rows(config, has_oov)

    def run(self) -> Fitted:
        """All statistics, vocabularies and table sizes.

        Raises:
            ValueError: no training row, or a size that the rows cannot give or that is too small.
        """
        if not any((codes == TRAIN).any() for codes in self._codes):
            file = self._staged.files[0].path
            raise ValueError(f"{file}: the training part has no row. Give more rows, or a larger train_fraction.")
        spec, staged = self._spec, self._staged
        dense = [column if column.is_fitted else self._fit_dense(column) for column in spec.dense]
        starts: dict[str, np.ndarray] = {}
        tables: dict[str, TableIds] = {}
        sizes: dict[str, int] = {}
        for column in spec.categorical:
            lengths = [_num_tokens(staged, block, column) for block in range(len(staged.blocks))]
            starts[column.name] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        with ThreadPoolExecutor(self._workers) as pool:
            found = list(pool.map(lambda table: self._fit_table(table, starts), spec.table_names))
        for table, (ids, size) in zip(spec.table_names, found, strict=True):
            sizes[table] = size
            if ids is not None:
                tables[table] = ids
        categorical = [self._fit_bins(column) if needs_edges(column) else column for column in spec.categorical]
        fitted = replace(spec, dense=tuple(dense), categorical=tuple(categorical)).with_vocabulary_sizes(sizes)
        return Fitted(spec=fitted, tables=tables, starts=starts)

    def _fit_table(self, table: str, starts: dict[str, np.ndarray]) -> tuple[TableIds | None, int]:
        """Ids of a table with a vocabulary, and the number of its rows."""
        columns = [column for column in self._spec.categorical if column.table == table]
        given = self._spec.vocabulary_sizes.get(table)
        if given is None and self._given is not None and not self._config.extend:
            given = self._given.spec.vocabulary_sizes.get(table)
        ids = None
        if has_vocabulary(table, columns):
            ids = self._table(table, columns, starts)
            needed = ids.num_values + ids.has_oov
            size = needed if given is None else given
            check_size(table, size, needed)
        elif given is None:
            needs_size(table, columns)
            size = self._largest(columns) + 1
        else:
            size = given
        self._on_table(table)
        return ids, size

    def _fit_dense(self, column: DenseColumn) -> DenseColumn:
        mean, std = self._mean_and_std(column.name)
        return replace(column, mean=mean, std=std)

    def _mean_and_std(self, name: str) -> tuple[float, float]:
        """Of raw values, block by block: the population's standard deviation, and 1 for a constant column."""
        if self._given is not None:
            for column in self._given.spec.dense:
                if column.name == name and column.mean is not None and column.std is not None:
                    return column.mean, column.std
        blocks = range(len(self._codes))

        def values(block: int) -> np.ndarray:
            return self._staged.column(block, f"dense/{name}").to_numpy()[self._codes[block] == TRAIN]

        count = sum(int((codes == TRAIN).sum()) for codes in self._codes)
        mean = math.fsum(values(block).sum() for block in blocks) / count
        variance = math.fsum(((values(block) - mean) ** 2).sum() for block in blocks) / count
        return mean, math.sqrt(variance) if variance > 0.0 else 1.0

    def _fit_bins(self, column: CategoricalColumn) -> CategoricalColumn:
        for given in self._given.spec.categorical if self._given is not None else ():
            if given.name == column.name and given.bins == column.bins and given.edges is not None:
                return replace(column, edges=given.edges)

        def values() -> Iterator[np.ndarray]:
            for block, codes in enumerate(self._codes):
                yield self._staged.column(block, f"tokens/{column.name}").to_numpy()[codes == TRAIN]

        return replace(column, edges=fit_bins(column, values))

    def _largest(self, columns: Sequence[CategoricalColumn]) -> int:
        largest = 0
        for block, codes in enumerate(self._codes):
            for column in columns:
                tokens, rows = _tokens(self._staged, block, column)
                counted = tokens.to_numpy()[self._counted(codes)[rows]]
                largest = max(largest, int(counted.max(initial=0)))
        return largest

    def _table(self, table: str, columns: Sequence[CategoricalColumn], starts: dict[str, np.ndarray]) -> TableIds:
        has_oov = any(column.id_policy == "oov" for column in columns)
        sizes = [int(starts[column.name][-1]) for column in columns]
        names = [column.name for column in columns]
        if self._folder is None:
            found = self._ids_of(table, columns, None)
            held = self._by_column(found.ids, columns, sizes, None)
            (values,) = found.values()
            return TableIds(
                num_values=found.num_values,
                has_oov=has_oov,
                complete=found.complete,
                columns=dict(zip(names, held, strict=True)),
                values=values,
            )
        folder = self._folder / f"{self._spec.table_names.index(table):04d}"
        done = read_json(folder / "done.json")
        if done is None:
            found = self._ids_of(table, columns, folder)
            vocabulary = vocabulary_file(self._output, table)
            vocabulary.parent.mkdir(exist_ok=True)
            with atomic_path(vocabulary) as partial, partial.open("wb") as text:
                for values in found.values():
                    text.write(value_lines(pl.Series(values)))
            self._by_column(found.ids, columns, sizes, folder)
            done = {"num_values": found.num_values, "complete": found.complete, "dtype": found.ids.dtype.name}
            write_json(folder / "done.json", done)
        ids = {
            name: DiskArray(folder / _column_file(place), sizes[place], done["dtype"], keep=True)
            for place, name in enumerate(names)
        }
        return TableIds(num_values=done["num_values"], has_oov=has_oov, complete=done["complete"], columns=ids)

    def _ids_of(self, table: str, columns: Sequence[CategoricalColumn], folder: Path | None) -> TokenIds:
        given = None
        if self._given is not None and table in self._given.vocabularies:
            given = to_arrow(self._given.vocabularies[table].values)
        return token_ids(self._stream(columns, given), self._rules(given), folder, budget=self._budget)

    def _by_column(
        self,
        ids: DiskArray | HeldArray,
        columns: Sequence[CategoricalColumn],
        sizes: Sequence[int],
        folder: Path | None,
    ) -> Sequence[DiskArray | HeldArray]:
        """The ids of a table's stream, apart by column; in files of the folder if there is one."""
        if len(columns) == 1:
            if isinstance(ids, DiskArray) and folder is not None:
                ids.path.rename(folder / _column_file(0))
            return [ids]
        own = [new_array(folder, _column_file(place), size, ids.dtype) for place, size in enumerate(sizes)]
        position, positions = 0, [0] * len(columns)
        for block in range(len(self._staged.blocks)):
            order, lengths = self._interleaved(block, columns)
            ordered = np.empty(len(order), ids.dtype)
            ordered[order] = ids.read(position, position + len(order))
            position += len(order)
            for place, piece in enumerate(np.split(ordered, np.cumsum(lengths)[:-1])):
                own[place].write(positions[place], piece)
                positions[place] += len(piece)
        ids.remove()
        return own

    def _counted(self, codes: np.ndarray) -> np.ndarray:
        """bool [rows], those that vocabularies and sizes of tables come from."""
        return codes < SAMPLED_OUT if self._all_rows else codes == TRAIN

    def _rules(self, given: pa.Array | None) -> VocabularyRules:
        config = self._config
        return VocabularyRules(
            min_count=config.min_count,
            by_frequency=config.vocabulary_order == "frequency",
            given=given,
            closed=given is not None and not config.extend,
        )

    def _stream(self, columns: Sequence[CategoricalColumn], given: pa.Array | None) -> TokenStream:
        staged = self._staged
        blocks = range(len(staged.blocks))
        types = {kind for column in columns for kind in staged.types(f"tokens/{column.name}")}
        kinds = {kind.value_type if pa.types.is_large_list(kind) else kind for kind in types}
        text = any(pa.types.is_large_string(kind) for kind in kinds)
        # a given vocabulary may hold wider numbers than these rows
        narrow = kinds == {pa.uint32()} and not (given is not None and _is_wide(given))
        dtype = pa.large_string() if text else pa.uint32() if narrow else pa.int64()

        def read(block: int) -> Chunk:
            counts = self._counted(self._codes[block])
            parts = [_tokens(staged, block, column) for column in columns]
            tokens, rows = parts[0][0].cast(dtype), parts[0][1]
            if len(columns) > 1:
                rows = np.concatenate([rows for _, rows in parts])
                order = np.argsort(rows, kind="stable")
                tokens = pa.concat_arrays([own.cast(dtype) for own, _ in parts]).take(pa.array(order))
                rows = rows[order]
            return Chunk(tokens=tokens, counted=None if counts.all() else counts[rows])

        lengths = [sum(_num_tokens(staged, block, column) for column in columns) for block in blocks]
        return TokenStream(lengths=lengths, read=read, dtype=dtype)

    def _interleaved(self, block: int, columns: Sequence[CategoricalColumn]) -> tuple[np.ndarray, list[int]]:
        """The order in which a block's tokens entered the stream, and the number of each column's."""
        rows = [_tokens(self._staged, block, column)[1] for column in columns]
        return np.argsort(np.concatenate(rows), kind="stable"), [len(own) for own in rows]


def _column_file(place: int) -> str:
    return f"column-{place}.bin"


def _is_wide(given: pa.Array) -> bool:
    return pa.types.is_integer(given.type) and len(given) > 0 and pc.max(given).as_py() >= 2**32


def _tokens(staged: StagedRows, block: int, column: CategoricalColumn) -> tuple[pa.Array, np.ndarray]:
    """Tokens of a column in a block, and the row of each."""
    array = staged.column(block, f"tokens/{column.name}")
    if not pa.types.is_large_list(array.type):
        return array, np.arange(len(array))
    return array.values, np.repeat(np.arange(len(array)), np.diff(array.offsets.to_numpy()))


def _num_tokens(staged: StagedRows, block: int, column: CategoricalColumn) -> int:
    if not any(pa.types.is_large_list(kind) for kind in staged.types(f"tokens/{column.name}")):
        return int(staged.rows[block])
    return len(staged.column(block, f"tokens/{column.name}").values)
