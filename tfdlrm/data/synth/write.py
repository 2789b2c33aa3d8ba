"""Synthetic rows as raw files: Criteo's text, CSV or Parquet, block by block in bounded memory.

The bytes of a file depend on the configuration and the format alone, and not on how many threads make them.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tfdlrm.checks import check_choice
from tfdlrm.config.data import SyntheticConfig
from tfdlrm.data.synth.criteo_text import CriteoText, criteo_text_spec
from tfdlrm.data.synth.rows import STREAM_BLOCK_ROWS, SyntheticRows
from tfdlrm.files import atomic_path
from tfdlrm.schema import SCHEMA_FILE, FeatureSpec
from tfdlrm.yaml_text import dump_yaml

FileFormat = Literal["criteo", "csv", "parquet"]
Compression = Literal["none", "gz"]

CONFIG_FILE = "synthetic.yaml"
# what this module calls its files
_ROW_FILES = re.compile(r"(rows|day_[0-9]+)\.(tsv|csv|parquet)(\.gz)?")
_SUFFIXES = {"criteo": "tsv", "csv": "csv", "parquet": "parquet"}

# A row group, too: Parquet's columns compress better in longer runs, and text in as short pieces as are fast.
_PARQUET_BLOCK_ROWS = 4 * STREAM_BLOCK_ROWS
_GZIP_LEVEL = 1  # three times as fast as the default, for a tenth more bytes
_GZIP_WINDOW_BITS = 31  # zlib's number for "a gzip header and a 32 kB window"
_BLOCKS_AHEAD = 2  # a thread, made and not yet written

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class WrittenRows:
    """What was written.

    Args:
        files: in the order of rows.
        num_rows: rows in all of them.
        num_bytes: bytes of all of them.
        schema: the schema beside them.
    """

    files: tuple[Path, ...]
    num_rows: int
    num_bytes: int
    schema: Path


def write_synthetic(
    config: SyntheticConfig,
    folder: str | os.PathLike[str],
    *,
    file_format: FileFormat = "criteo",
    compression: Compression = "none",
    file_per_day: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
    num_threads: int | None = None,
) -> WrittenRows:
    """Writes all rows of a configuration, a `schema.yaml` to read them by, and the configuration itself.

    The file is `rows.tsv`, `.csv` or `.parquet`, or one a day, `day_0.tsv` and so on; text may be compressed (`.gz`).
    A file has its name once it is whole; until then it is called `<name>.partial`.

    - criteo: tab-separated without a header, as `format: criteo` reads it: label, counts, tokens of 8 hex digits; empty
      cells are empty. The teacher's probability is not in it.
    - csv, parquet: with the names, ids and keys of `synthetic_dataset`; an empty categorical cell is the id 0.

    Args:
        config: what to draw.
        folder: where to; made if it is not there.
        file_format: criteo, csv or parquet.
        compression: of text files; Parquet's pages are always compressed (snappy).
        file_per_day: a file for each of `config.days`.
        replace: write although the folder has files, and remove earlier rows from it; otherwise that is an error.
        progress: called with the number of rows written so far.
        num_threads: that make rows; default one a processor.

    Raises:
        ValueError: the format cannot hold the columns, or an option means nothing here.
        FileExistsError: there are files already, and `replace` is false.
        ImportError: csv and parquet need polars and pyarrow.

    Example:
        >>> written = write_synthetic(SyntheticConfig(num_rows=1000, vocabulary_sizes=(10, 20)), "rows")
        >>> written.num_rows, written.files[0].name
        (1000, 'rows.tsv')
    """
    check_choice("write_synthetic", "file_format", file_format, get_args(FileFormat))
    check_choice("write_synthetic", "compression", compression, get_args(Compression))
    if compression == "gz" and file_format == "parquet":
        raise ValueError("write_synthetic: compression='gz' is for text; Parquet compresses its pages. Remove it.")
    target = Path(folder)
    _refuse_present(target, replace)
    rows = SyntheticRows(config)
    parts = [rows.days.rows(day) for day in range(config.days)] if file_per_day else [(0, config.num_rows)]
    suffix = _SUFFIXES[file_format] + (".gz" if compression == "gz" else "")
    names = [f"day_{day}.{suffix}" for day in range(len(parts))] if file_per_day else [f"rows.{suffix}"]
    encoder = _encoder(file_format, rows, config.seed)
    target.mkdir(parents=True, exist_ok=True)
    done = 0
    num_threads = num_threads or os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        for name, (start, stop) in zip(names, parts, strict=True):
            with atomic_path(target / name) as partial, encoder.open(partial) as sink:
                pieces = _pieces(start, stop, encoder.block_rows)
                for block in _in_order(pool, encoder, pieces, compression == "gz", _BLOCKS_AHEAD * num_threads):
                    sink(block.content)
                    done += block.num_rows
                    if progress is not None:
                        progress(done)
    for name, text in ((SCHEMA_FILE, dump_yaml(encoder.spec.to_dict())), (CONFIG_FILE, dump_yaml(config.to_dict()))):
        with atomic_path(target / name) as partial:
            partial.write_text(text, encoding="utf-8")
    _remove_others(target, names)
    files = tuple(target / name for name in names)
    return WrittenRows(
        files=files,
        num_rows=done,
        num_bytes=sum(file.stat().st_size for file in files),
        schema=target / SCHEMA_FILE,
    )


@dataclass(frozen=True)
class _Block:
    num_rows: int
    content: Any


class _TextFile:
    block_rows = STREAM_BLOCK_ROWS

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[Callable[[bytes], object]]:
        with path.open("wb") as stream:
            yield stream.write


class _CriteoEncoder(_TextFile):
    def __init__(self, rows: SyntheticRows, seed: int) -> None:
        self.spec: FeatureSpec = criteo_text_spec(rows.spec)
        self._rows = rows
        self._text = CriteoText(rows.spec, seed, rows.largest_count)

    def encode(self, start: int, stop: int, is_first: bool) -> bytes:
        return self._text.lines(*self._rows.read(start, stop))


class _CsvEncoder(_TextFile):
    def __init__(self, rows: SyntheticRows) -> None:
        self.spec = rows.spec
        self._rows = rows

    def encode(self, start: int, stop: int, is_first: bool) -> bytes:
        from tfdlrm.data.synth.tables import csv_text

        return csv_text(self.spec, *self._rows.read(start, stop), header=is_first)


class _ParquetEncoder:
    block_rows = _PARQUET_BLOCK_ROWS

    def __init__(self, rows: SyntheticRows) -> None:
        self.spec = rows.spec
        self._rows = rows

    def encode(self, start: int, stop: int, is_first: bool) -> Any:
        from tfdlrm.data.synth.tables import arrow_table

        return arrow_table(self.spec, *self._rows.read(start, stop))

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[Callable[[Any], object]]:
        from tfdlrm.data.pyarrow_extra import pq

        schema = self.encode(0, 1, True).schema
        with pq.ParquetWriter(path, schema, compression="snappy") as writer:
            yield writer.write_table


_Encoder = _CriteoEncoder | _CsvEncoder | _ParquetEncoder


def _encoder(file_format: FileFormat, rows: SyntheticRows, seed: int) -> _Encoder:
    if file_format == "criteo":
        return _CriteoEncoder(rows, seed)
    import tfdlrm.data.synth.tables  # noqa: F401 - a missing extra is said before anything is written

    return _CsvEncoder(rows) if file_format == "csv" else _ParquetEncoder(rows)


def _pieces(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """[start, stop) cut at multiples of `size`, where blocks of rows begin: none is drawn twice within a file."""
    cuts = [start, *range(start // size * size + size, stop, size), stop]
    return [(low, high) for low, high in itertools.pairwise(cuts) if low < high]


def _in_order(
    pool: ThreadPoolExecutor,
    encoder: _Encoder,
    pieces: list[tuple[int, int]],
    compress: bool,
    num_ahead: int,
) -> Iterator[_Block]:
    """Encoded pieces in their order; a few are made ahead."""

    def make(start: int, stop: int) -> _Block:
        content = encoder.encode(start, stop, start == pieces[0][0])
        # every piece is a gzip member of its own, so that they can be made at the same time
        return _Block(stop - start, _gzip(content) if compress else content)

    waiting: collections.deque[Future[_Block]] = collections.deque()
    try:
        for start, stop in pieces:
            waiting.append(pool.submit(make, start, stop))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _gzip(content: bytes) -> bytes:
    """A gzip member without name and time: the same bytes every time."""
    member = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW_BITS)
    return member.compress(content) + member.flush()


def _refuse_present(folder: Path, replace: bool) -> None:
    if replace or not folder.exists():
        return
    present = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else [folder.name]
    if present:
        raise FileExistsError(
            f"{folder}: there is something already ({', '.join(present[:5])}). Give a new folder, "
            "or replace it (--force)."
        )


def _remove_others(folder: Path, names: list[str]) -> None:
    """Removes the rows of an earlier run: who reads the folder would read both."""
    for entry in folder.iterdir():
        if _ROW_FILES.fullmatch(entry.name) and entry.name not in names:
            entry.unlink()
