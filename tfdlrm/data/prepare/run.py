"""prepare: raw files to the training format, in bounded memory; a run that was killed goes on where it stood."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfdlrm.data.prepare.config import PrepareConfig, find_files, spec_of
from tfdlrm.data.prepare.encode import BlockEncoder, MultiHot, dcnv2_bags
from tfdlrm.data.prepare.fit import Fitted, Fitter
from tfdlrm.data.prepare.output import OutputFile, parts_of_manifest, write_parts
from tfdlrm.data.prepare.parts import SAMPLED_OUT, part_codes
from tfdlrm.data.prepare.stage import CollectedBadRows, StagedFile, StagedRows, Stager
from tfdlrm.data.prepare.work import WorkFolder, read_json, write_json
from tfdlrm.data.prepared_folders import FORMAT_NAME, FORMAT_VERSION, MANIFEST_FILE, PARTS
from tfdlrm.data.preprocessing import Preprocessing, save_description
from tfdlrm.data.quarantine import (
    QUARANTINE_FILE,
    QUARANTINE_HEADER,
)
from tfdlrm.data.raw_formats import open_source
from tfdlrm.data.sources import report_late
from tfdlrm.files import atomic_path
from tfdlrm.native.examples import can_write_examples
from tfdlrm.schema import FeatureSpec

_LEAST_MEMORY = 2**27
_LEAST_CHUNK, _MOST_CHUNK = 2**20, 2**24


class Listener:
    """Is told how far a preparation is, one call at a time, from any of its threads; this one does nothing."""

    def parsed(self, num_bytes: int, num_rows: int, total_bytes: int) -> None:
        """So much of the raw files is parsed."""

    def fitted(self, table: str, num_tables: int) -> None:
        """One more table has its ids."""

    def written(self, num_rows: int, total_rows: int) -> None:
        """So many more rows are written."""


class _OneAtATime(Listener):
    """Tells another listener; steps of several threads may end together."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self._lock = listener, threading.Lock()

    def parsed(self, num_bytes: int, num_rows: int, total_bytes: int) -> None:
        with self._lock:
            self._listener.parsed(num_bytes, num_rows, total_bytes)

    def fitted(self, table: str, num_tables: int) -> None:
        with self._lock:
            self._listener.fitted(table, num_tables)

    def written(self, num_rows: int, total_rows: int) -> None:
        with self._lock:
            self._listener.written(num_rows, total_rows)


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What a preparation did.

    Args:
        output: the folder.
        manifest: what `manifest.json` holds.
        resumed: an earlier run's work was used.
        seconds: that each pass of this run took: `parsing`, `vocabularies` (and statistics), `writing`.
    """

    output: Path
    manifest: dict[str, Any]
    resumed: bool
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def books(self) -> dict[str, int]:
        """read = written + quarantined + sampled_out."""
        return self.manifest["books"]


def default_memory() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def prepare(
    config: PrepareConfig,
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    memory: int | None = None,
    bad_rows: Literal["error", "quarantine"] = "error",
    restart: bool = False,
    command: Sequence[str] = (),
    listener: Listener | None = None,
) -> PrepareResult:
    """Turn raw files into prepared data: `manifest.json`, schema, vocabularies and a folder of files a part.

    Args:
        config: what to do.
        sources: files, folders, glob patterns.
        output: a new or empty folder, or one where the same preparation was stopped: it then goes on.
        memory: bytes to keep to, about; default half of the machine's.
        bad_rows: `error` raises at the first bad row; `quarantine` writes them to `quarantine.tsv` and goes on.
        restart: do not go on; throw away what is there.
        command: for the manifest.
        listener: for progress.

    Raises:
        BadRowError: a bad row, in mode `error`.
        FileExistsError, FileNotFoundError, BlockingIOError: a folder or file is not as it should be.
        ValueError: options that do not fit the rows, or no usable row.

    Example:
        >>> result = prepare(PrepareConfig(format="criteo-kaggle", split="criteo-kaggle"), ["train.txt"], "kaggle")
        >>> result.books
        {'read': 45840617, 'written': 45840617, 'quarantined': 0, 'sampled_out': 0}
    """
    memory = default_memory() if memory is None else memory
    if memory < _LEAST_MEMORY:
        raise ValueError(f"memory={memory:,} bytes is too little. Give {_LEAST_MEMORY // 2**20} MB or more.")
    files = _files(config, sources)
    spec = spec_of(config, files)
    chunk_bytes = int(np.clip(2 ** int(math.log2(memory / 128)), _LEAST_CHUNK, _MOST_CHUNK))
    plan = {
        "format": [FORMAT_NAME, FORMAT_VERSION],
        "config": config.to_dict(),
        "schema": spec.to_dict(),
        "sources": [_identity(file) for file in files],
        "bad_rows": bad_rows,
        "chunk_bytes": chunk_bytes,
    }
    work = WorkFolder(Path(output), plan, restart=restart)
    seconds: Mapping[str, float] = {}
    with contextlib.closing(work):
        if work.finished:
            manifest = read_json(work.output / MANIFEST_FILE)
        else:
            run = _Run(config, spec, files, work, bad_rows, _OneAtATime(listener or Listener()))
            seconds = run.seconds
            try:
                manifest = run.run(chunk_bytes=chunk_bytes, budget=memory // 3, command=list(command))
            except OSError as error:
                if error.errno is None or error.filename is not None:
                    raise
                # of a full disk Arrow says no more than that
                raise OSError(error.errno, os.strerror(error.errno), str(work.output)) from error
        work.remove()
    return PrepareResult(output=work.output, manifest=manifest, resumed=work.resumed, seconds=seconds)


def uses_tensorflow(config: PrepareConfig, sources: Sequence[str | os.PathLike[str]]) -> bool:
    """Whether a preparation takes TensorFlow: it hashes text, makes bags, or writes TFRecords without native code.

    Args, Raises: as for `prepare`.
    """
    spec = spec_of(config, _files(config, sources))
    hashes = config.split == "hash" or any(column.encoding == "hash" for column in spec.categorical)
    writes = config.output == "tfrecord" and not can_write_examples()
    return hashes or config.multi_hot is not None or writes


def _files(config: PrepareConfig, sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    files = [Path(source) for source in sources] if config.format == "movielens" else find_files(sources)
    if not files:
        raise ValueError("no source is given. Name files, folders or patterns.")
    return files


class _Run:
    def __init__(
        self,
        config: PrepareConfig,
        spec: FeatureSpec,
        files: Sequence[Path],
        work: WorkFolder,
        bad_rows: Literal["error", "quarantine"],
        listener: Listener,
    ) -> None:
        self._config, self._spec, self._files = config, spec, files
        self._work, self._bad_rows, self._listener = work, bad_rows, listener
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - start

    def run(self, *, chunk_bytes: int, budget: int, command: list[str]) -> dict[str, Any]:
        with self._timed("parsing"):
            staged = self._stage(chunk_bytes)
        codes = part_codes(self._config, staged, self._spec.label)
        fitter = Fitter(
            self._config,
            self._spec,
            staged,
            codes,
            given=Preprocessing.load(self._config.vocabularies) if self._config.vocabularies is not None else None,
            folder=self._work.folder("ids"),
            output=self._work.output,
            budget=budget,
            on_table=lambda table: self._listener.fitted(table, len(self._spec.table_names)),
        )
        with self._timed("vocabularies"):
            fitted = fitter.run()
        fitted, multi_hot = self._bags(fitted)
        encoder = BlockEncoder(staged, fitted, multi_hot)
        late = self._late_bad_rows(encoder, staged, codes, chunk_bytes)
        total = sum(int((own < len(PARTS)).sum()) for own in codes)
        with self._timed("writing"):
            files = write_parts(
                encoder,
                codes,
                self._work.output,
                self._config.output,
                lambda rows: self._listener.written(rows, total),
            )
        self._write_quarantine(staged.files, late)
        tables = {name: (table.num_values, table.has_oov) for name, table in fitted.tables.items()}
        save_description(self._work.output, fitted.spec, tables, self._config.id_modulo)
        manifest = self._manifest(staged, codes, files, late, command)
        write_json(self._work.output / MANIFEST_FILE, manifest)
        return manifest

    def _stage(self, chunk_bytes: int) -> StagedRows:
        total = sum(_bytes_of(file) for file in self._files)
        stager = Stager(
            self._config,
            self._spec,
            self._work.folder("stage"),
            bad_rows=self._bad_rows,
            chunk_bytes=chunk_bytes,
            on_progress=lambda done, rows: self._listener.parsed(done, rows, total),
        )
        staged = StagedRows(folder=self._work.folder("stage"), files=tuple(stager.run(self._files)))
        if not staged.blocks:
            read = sum(file.rows_read for file in staged.files)
            self._write_quarantine(staged.files, {})
            names = ", ".join(str(file) for file in self._files[:3])
            notes = "".join(f" {note}" for file in staged.files[:3] for note in file.notes)
            where = f"; {self._work.output / QUARANTINE_FILE} says what is wrong" if read else ""
            raise ValueError(f"{names}: no usable row among {read:,} read.{notes} Give files with at least one{where}.")
        return staged

    def _bags(self, fitted: Fitted) -> tuple[Fitted, MultiHot | None]:
        if self._config.multi_hot is None:
            return fitted, None
        spec, multi_hot = dcnv2_bags(fitted.spec, self._config.seed)
        return replace(fitted, spec=spec), multi_hot

    def _late_bad_rows(
        self, encoder: BlockEncoder, staged: StagedRows, codes: Sequence[np.ndarray], chunk_bytes: int
    ) -> dict[int, list[str]]:
        """Marks rows that turn out bad only now; their quarantine lines, by file."""
        lines = {}
        for number, rows in encoder.mark_bad(codes).items():
            file, quarantine = self._files[number], CollectedBadRows(self._bad_rows)
            source, _ = open_source(self._config.format, file, self._spec, quarantine, chunk_bytes=chunk_bytes)
            report_late(rows, source, quarantine)
            lines[number] = quarantine.fetch()
        return lines

    def _write_quarantine(self, files: Sequence[StagedFile], late: dict[int, list[str]]) -> None:
        lines = [line for number, file in enumerate(files) for line in (*file.bad, *late.get(number, []))]
        path = self._work.output / QUARANTINE_FILE
        if not lines:
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as partial:
            partial.write_text(QUARANTINE_HEADER + "".join(lines), encoding="utf-8", newline="\n")

    def _manifest(
        self,
        staged: StagedRows,
        codes: Sequence[np.ndarray],
        files: dict[str, list[OutputFile]],
        late: dict[int, list[str]],
        command: list[str],
    ) -> dict[str, Any]:
        books = {
            "read": sum(file.rows_read for file in staged.files),
            "written": sum(file.rows for own in files.values() for file in own),
            "quarantined": sum(len(file.bad) for file in staged.files) + sum(len(lines) for lines in late.values()),
            "sampled_out": sum(int((own == SAMPLED_OUT).sum()) for own in codes),
        }
        if books["read"] != books["written"] + books["quarantined"] + books["sampled_out"]:
            raise RuntimeError(f"the books do not balance: {books}. Rows were lost or doubled; this is a defect.")
        keep = self._config.keep_negatives
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "command": command,
            "config": {key: value for key, value in self._config.to_dict().items() if key != "schema"},
            "schema": "schema.yaml",
            "books": books,
            "parts": parts_of_manifest(files),
            "sources": [
                {**_identity(path), "rows_read": file.rows_read, "quarantined": len(file.bad), "notes": file.notes}
                for path, file in zip(self._files, staged.files, strict=True)
            ],
            # a model of the sampled rows says too much: true logit = its logit + logit_offset
            "sampling": {"keep_negatives": keep, "logit_offset": math.log(keep)},
        }


def _identity(file: Path) -> dict[str, Any]:
    """Name, size and age of a source: a file that changed is another one."""
    if file.is_dir():
        entries = sorted(entry for entry in file.iterdir() if entry.is_file())
        return {"path": os.path.abspath(file), "bytes": _bytes_of(file), "modified": [_modified(e) for e in entries]}
    if not file.exists():
        raise FileNotFoundError(f"{file}: there is no such file. Name files, folders or patterns that exist.")
    return {"path": os.path.abspath(file), "bytes": _bytes_of(file), "modified": _modified(file)}


def _modified(file: Path) -> int:
    return file.stat().st_mtime_ns


def _bytes_of(file: Path) -> int:
    if file.is_dir():
        return sum(entry.stat().st_size for entry in file.iterdir() if entry.is_file())
    return file.stat().st_size
