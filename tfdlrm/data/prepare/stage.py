"""The first pass: every block of raw rows, parsed and checked, to a file of its own in the work folder.

A block counts once its `.json` is there, which is written last; after a kill only blocks without one are parsed again.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.data.cells import parse_text
from tfdlrm.data.parse import FrameBlock, RawRows, RowParser, parse_key
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.work import read_json, write_json
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.quarantine import Quarantine, quarantine_line
from tfdlrm.data.raw_formats import open_source
from tfdlrm.data.sources import parse_block
from tfdlrm.files import atomic_path
from tfdlrm.schema import ROW_ID, FeatureSpec

LINE = "line"
NUMBER = "number"  # of a row among all of its file, from 0


@dataclass(frozen=True, kw_only=True)
class StagedFile:
    """What became of one raw file.

    Args:
        path: the raw file.
        rows_read: good and bad ones.
        blocks: names of the staged blocks that have rows, in order.
        rows: of each block.
        bad: lines of the quarantine file, one a bad row, in order.
        notes: what else is to be said of the file.
    """

    path: str
    rows_read: int
    blocks: tuple[str, ...]
    rows: tuple[int, ...]
    bad: tuple[str, ...]
    notes: tuple[str, ...] = ()


class CollectedBadRows(Quarantine):
    """Bad rows kept as lines until they are fetched; in mode `error` the first is raised as usual."""

    def __init__(self, mode: Any) -> None:
        super().__init__(mode)
        self._lines: list[str] = []

    def add_all(self, rows: Any) -> None:
        rows = sorted(rows, key=lambda row: row.line)
        super().add_all(rows)
        self._lines.extend(quarantine_line(row) for row in rows)

    def fetch(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


class Stager:
    """Parses raw files into a folder of staged blocks.

    Args:
        config, spec: what the rows are.
        folder: for the blocks.
        bad_rows: `error` raises at the first bad row, `quarantine` sets them aside.
        chunk_bytes: text handled at once.
        on_progress: told (bytes of raw files read, rows read) again and again.
    """

    def __init__(
        self,
        config: PrepareConfig,
        spec: FeatureSpec,
        folder: Path,
        *,
        bad_rows: str,
        chunk_bytes: int,
        on_progress: Callable[[int, int], None] = lambda _bytes, _rows: None,
    ) -> None:
        self._config, self._spec, self._folder = config, spec, folder
        self._bad_rows, self._chunk_bytes = bad_rows, chunk_bytes
        self._on_progress = on_progress
        self._bytes = self._rows = 0  # of the files done

    def run(self, files: Sequence[Path]) -> list[StagedFile]:
        """Stage all files, in order.

        Raises:
            BadRowError: there is a bad row, and the mode is `error`; it is the first one.
        """
        staged = []
        with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
            for number, file in enumerate(files):
                done = self._folder / f"{number:05d}.json"
                plain = read_json(done)
                if plain is None:
                    plain = self._stage(pool, number, file)
                    write_json(done, plain)
                staged.append(
                    StagedFile(
                        path=plain["path"],
                        rows_read=plain["rows_read"],
                        blocks=tuple(plain["blocks"]),
                        rows=tuple(plain["rows"]),
                        bad=tuple(plain["bad"]),
                        notes=tuple(plain.get("notes", ())),
                    )
                )
                self._bytes += _size(file)
                self._rows += staged[-1].rows_read
                self._on_progress(self._bytes, self._rows)
        return staged

    def _stage(self, pool: ThreadPoolExecutor, number: int, file: Path) -> dict[str, Any]:
        quarantine = CollectedBadRows(self._bad_rows)
        try:
            source, _ = open_source(self._config.format, file, self._spec, quarantine, chunk_bytes=self._chunk_bytes)
        except ValueError as error:
            if self._bad_rows == "error" or not _is_empty(file):
                raise
            # An empty day among many: no row is lost by going on, and the manifest says so.
            return {"path": str(file), "rows_read": 0, "blocks": [], "rows": [], "bad": [], "notes": [str(error)]}
        pending: deque[Future[tuple[str, int, list[str]]]] = deque()
        results = []
        most = pool._max_workers + 1
        failure: Exception | None = None
        blocks = enumerate(source.blocks())
        while True:
            try:
                entry = next(blocks, None)
            except Exception as error:
                # blocks before the one that failed may hold an earlier bad row
                entry, failure = None, error
            if entry is not None:
                name = f"{number:05d}-{entry[0]:06d}"
                pending.append(pool.submit(self._one_block, name, entry[1], source, quarantine.fetch()))
            while pending and (entry is None or len(pending) > most):
                results.append(pending.popleft().result())
                read = getattr(source, "bytes_read", 0)
                self._on_progress(self._bytes + read, self._rows + source.rows_read)
            if entry is None:
                break
        if failure is not None:
            raise failure
        bad = [line for _, _, lines in results for line in lines] + quarantine.fetch()
        good = [(name, rows) for name, rows, _ in results if rows]
        return {
            "path": str(file),
            "rows_read": source.rows_read,
            "blocks": [name for name, _ in good],
            "rows": [rows for _, rows in good],
            "bad": bad,
        }

    def _one_block(self, name: str, block: FrameBlock, source: Any, earlier: list[str]) -> tuple[str, int, list[str]]:
        done = self._folder / f"{name}.json"
        plain = read_json(done)
        if plain is None:
            quarantine = CollectedBadRows(self._bad_rows)
            parser = RowParser(self._spec, quarantine, id_modulo=self._config.id_modulo)
            rows = parse_block(parser, block, source)
            with atomic_path(self._folder / f"{name}.arrow") as partial:
                write_arrow(partial, staged_table(rows, self._spec, numbered=ROW_ID not in block.frame.columns))
            plain = {"rows": rows.num_rows, "bad": [*earlier, *quarantine.fetch()]}
            write_json(done, plain)
        return name, plain["rows"], plain["bad"]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _is_empty(file: Path) -> bool:
    return file.is_file() and file.stat().st_size == 0


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table as one uncompressed Arrow IPC file, which can be mapped into memory."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def staged_table(rows: RawRows, spec: FeatureSpec, *, numbered: bool) -> pa.Table:
    """Parsed rows as a table: `label/`, `dense/`, `tokens/`, `weights/` and `key/` columns, and `line`.

    Labels are whole numbers, or float32 with NaN where some are missing.

    Args:
        rows: of one block.
        spec: the columns.
        numbered: the rows' ids are their numbers in the file; else the file has a column of them.
    """
    columns: dict[str, pa.Array] = {}
    for task, name in enumerate(spec.labels):
        labels = np.ascontiguousarray(rows.labels[:, task])
        columns[f"label/{name}"] = pa.array(labels if np.isnan(labels).any() else labels.astype(np.uint8))
    for place, column in enumerate(spec.dense):
        values = rows.unscaled.get(column.name)
        columns[f"dense/{column.name}"] = pa.array(
            np.ascontiguousarray(rows.dense[:, place]) if values is None else values
        )
    for categorical in spec.categorical:
        tokens = rows.tokens[categorical.name]
        columns[f"tokens/{categorical.name}"] = bags_of(to_arrow(tokens.values), tokens.lengths)
        if tokens.weights is not None:
            columns[f"weights/{categorical.name}"] = bags_of(pa.array(tokens.weights), tokens.lengths)
    for name, series in rows.keys.items():
        if name == ROW_ID and numbered:
            columns[NUMBER] = pa.array(series.to_numpy())
            continue
        key = parse_key(series)
        columns[f"key/{name}"] = to_arrow(parse_text(series)) if key.dtype == object else pa.array(key)
    columns[LINE] = pa.array(rows.lines.astype(np.int64))
    return pa.table(columns)


def to_arrow(series: pl.Series) -> pa.Array:
    """A series as one Arrow array; text as large strings."""
    array = series.to_arrow(compat_level=pl.CompatLevel.oldest())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def bags_of(values: pa.Array, lengths: np.ndarray | None) -> pa.Array:
    """Values as lists of these lengths; as they are where there are no lengths."""
    if lengths is None:
        return values
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


@dataclass(frozen=True, kw_only=True)
class StagedRows:
    """All staged rows, block by block, read column by column.

    Args:
        files: what was staged.
        folder: holds the blocks, as Arrow files.
        tables: the blocks by name, where they are in memory.
    """

    files: tuple[StagedFile, ...]
    folder: Path | None = None
    tables: Mapping[str, pa.Table] = field(default_factory=dict)

    @functools.cached_property
    def blocks(self) -> list[str]:
        """Names of the blocks, in order."""
        return [name for file in self.files for name in file.blocks]

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """int64 [blocks], rows of each."""
        return np.array([rows for file in self.files for rows in file.rows], np.int64)

    def file_of_block(self) -> list[int]:
        """Number of the file each block comes from."""
        return [number for number, file in enumerate(self.files) for _ in file.blocks]

    def column(self, block: int, name: str) -> pa.Array:
        """One column of a block. It is read into memory: mapped files would count as memory in use."""
        return self.columns(block, [name])[name]

    def columns(self, block: int, names: Sequence[str]) -> dict[str, pa.Array]:
        """Some columns of a block."""
        table = self.tables.get(self.blocks[block])
        if table is None:
            every = self._schema(block).names
            fields = sorted(every.index(name) for name in names)
            # blocks are read beside each other: more threads within one would only wait
            options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            with pa.OSFile(self._path(block)) as stream:
                table = pa.ipc.open_file(stream, options=options).read_all()
        return {name: table[name].combine_chunks() for name in names}

    def key(self, block: int, name: str) -> pa.Array:
        """A key column of a block, of one type in all blocks: whole numbers, numbers or text."""
        return self.column(block, f"key/{name}").cast(self.key_type(name))

    def key_type(self, name: str) -> pa.DataType:
        """The type that holds the keys of all blocks."""
        types = self.types(f"key/{name}")
        if any(pa.types.is_large_string(kind) for kind in types):
            return pa.large_string()
        # not float64 for whole numbers and floats: it has no 64-bit ids
        return next(iter(types)) if len(types) == 1 else pa.large_string()

    @functools.cached_property
    def names(self) -> list[str]:
        """The columns of every block."""
        return list(self._schema(0).names) if self.blocks else []

    def types(self, name: str) -> set[pa.DataType]:
        """The types a column has in the blocks: whole numbers of different widths, or text where not all are some."""
        if name not in self._types:
            self._types[name] = {self._schema(block).field(name).type for block in range(len(self.blocks))}
        return self._types[name]

    def _path(self, block: int) -> str:
        assert self.folder is not None
        return str(self.folder / f"{self.blocks[block]}.arrow")

    def _schema(self, block: int) -> pa.Schema:
        if self.tables:
            return self.tables[self.blocks[block]].schema
        if block not in self._schemas:
            with pa.OSFile(self._path(block)) as stream:
                self._schemas[block] = pa.ipc.open_file(stream).schema
        return self._schemas[block]

    @functools.cached_property
    def _types(self) -> dict[str, set[pa.DataType]]:
        return {}

    @functools.cached_property
    def _schemas(self) -> dict[int, pa.Schema]:
        return {}
