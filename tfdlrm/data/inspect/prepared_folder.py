"""PreparedInput: a folder in the training format, read batch by batch through memory maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.cells import Tokens
from tfdlrm.data.inspect.blocks import InspectBlock, days_of, find_day_column
from tfdlrm.data.inspect.label_rates import section_ends, sections_of
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepared_file import arrow_errors, column_problem, mapped_table
from tfdlrm.data.prepared_folders import PARTS, id_limit, read_manifest, refuse_other_output
from tfdlrm.data.preprocessing import read_description
from tfdlrm.data.pyarrow_extra import pa, pc
from tfdlrm.files import path_inside
from tfdlrm.schema import OOV_ID, CategoricalColumn

_BLOCK_ROWS = 2**17


class PreparedInput:
    """The parts of a prepared folder. See `InspectInput`.

    Args:
        path: the folder.
        max_rows: read no more rows of a part; None for all.
        num_sections: groups of contiguous rows of the training part; each other part is one more.
        day_column: column of time; None to look for one among the keys.

    Raises:
        FileNotFoundError: the folder lacks a file.
        ValueError: a file cannot be read, or lacks a column of the schema.
    """

    data_format = "prepared"
    is_prepared = True

    def __init__(
        self, path: Path, *, max_rows: int | None = None, num_sections: int = 7, day_column: str | None = None
    ) -> None:
        self._path = path
        manifest = read_manifest(path)
        refuse_other_output(path, manifest)
        self._max_rows = max_rows
        self._num_sections = num_sections
        self._wanted_day_column = day_column
        self.spec, _, self._vocabularies = read_description(path)
        # row 0, where a table keeps one for unseen values
        self.unseen_ids: Mapping[str, int] = {
            column.name: OOV_ID
            for column in self.spec.categorical
            if column.id_policy == "oov"
            and column.table in self._vocabularies
            and self._vocabularies[column.table].has_oov
        }
        entries = {part: manifest["parts"][part] for part in PARTS if part in manifest["parts"]}
        if "train" not in entries:
            raise ValueError(f"{path}: has no rows to train on. Prepare the data again, with another split.")
        self._files = {part: [_arrow_file(path, file) for file in entry["files"]] for part, entry in entries.items()}
        self._num_rows = {part: entry["rows"] for part, entry in entries.items()}
        self.parts: Mapping[str, str] = {part: f"{part}/, {len(files)} files" for part, files in self._files.items()}
        self.section_names = tuple(
            f"{part} {number} of {num_sections}" if part == "train" else part
            for part in self._files
            for number in range(1, (num_sections if part == "train" else 1) + 1)
        )
        self.day_column = ""
        self.rows_read = 0

    def names(self, column: str) -> Callable[[list[object]], list[str]]:
        """Ids with the raw values they stand for, where there is a vocabulary."""
        table = next(each.table for each in self.spec.categorical if each.name == column)
        if table not in self._vocabularies:
            return lambda ids: [str(value) for value in ids]
        entry = self._vocabularies[table]
        shift = int(entry.has_oov)

        def named(ids: list[object]) -> list[str]:
            numbers = [int(str(value)) for value in ids]
            lines = _lines(entry.file, {number - shift for number in numbers})
            values = [
                "(out of vocabulary)" if shift and number == OOV_ID else lines.get(number - shift, "(not in it)")
                for number in numbers
            ]
            return [f"{number} = {value or '(empty)'}" for number, value in zip(numbers, values, strict=True)]

        return named

    def blocks(self) -> Iterator[InspectBlock]:
        """The rows of every part, in order."""
        start = 0
        for part, files in self._files.items():
            num_sections = self._num_sections if part == "train" else 1
            num_rows = self._num_rows[part] if self._max_rows is None else min(self._num_rows[part], self._max_rows)
            ends = section_ends(num_rows, num_sections)
            done = 0
            for file in files:
                for batch in self._batches(file):
                    batch = batch.slice(0, num_rows - done)
                    if not batch.num_rows:
                        break
                    positions = np.arange(done, done + batch.num_rows)
                    done += batch.num_rows
                    self.rows_read += batch.num_rows
                    yield self._block(part, batch, start + sections_of(positions, ends), str(file))
            start += num_sections

    def _block(self, part: str, batch: Any, sections: np.ndarray, file: str) -> InspectBlock:
        columns = batch.schema.names
        found = [name for name in columns if name in self.spec.keys] if self._wanted_day_column is None else columns
        self.day_column = find_day_column(self._wanted_day_column, found, file)
        labels = [_numbers(batch.column(name)) for name in self.spec.labels]
        ids = {column.name: _tokens(batch.column(column.name), column) for column in self.spec.categorical}
        for column in self.spec.categorical:
            _check_ids(file, column, ids[column.name], id_limit(self.spec, column))
        empty = {
            name: np.zeros(batch.num_rows, bool) if tokens.lengths is None else tokens.lengths == 0
            for name, tokens in ids.items()
        }
        days = None
        if self.day_column:
            days = days_of(pl.Series(self.day_column, batch.column(self.day_column).to_pylist(), strict=False))
        return InspectBlock(
            part=part,
            sections=sections,
            labels=np.stack(labels, axis=1).astype(np.float32),
            dense={column.name: _numbers(batch.column(column.name)) for column in self.spec.dense},
            ids=ids,
            empty=empty,
            days=days,
        )

    def _batches(self, file: Path) -> Iterator[Any]:
        """Record batches of at most `_BLOCK_ROWS` rows; slices of a memory map are not copies."""
        table = mapped_table(file)
        self._check_columns(file, table.schema)
        with arrow_errors(file):
            for whole in table.to_batches():
                whole.validate(full=True)  # a reader maps buffers as they are
                for start in range(0, whole.num_rows, _BLOCK_ROWS):
                    yield whole.slice(start, _BLOCK_ROWS)

    def _check_columns(self, file: Path, found: pa.Schema) -> None:
        weights = (column.weights for column in self.spec.categorical if column.weights)
        for name in (*self.spec.labels, *(each.name for each in self.spec.dense), *self.spec.feature_names, *weights):
            if problem := column_problem(found, self.spec, name):
                raise ValueError(f"{file}: {problem}. Prepare the data again.")


def _arrow_file(folder: Path, entry: Mapping[str, Any]) -> Path:
    """A file of a part with as many rows as the manifest says; none that might never end, or elsewhere."""
    file = path_inside(folder, entry["name"])
    if not file.is_file():
        raise FileNotFoundError(f"{file}: is missing, and the manifest names it. Prepare the data again.")
    found = mapped_table(file).num_rows
    if found != entry["rows"]:
        raise ValueError(f"{file}: has {found} rows, and the manifest says {entry['rows']}. Prepare the data again.")
    return file


def _check_ids(file: str, column: CategoricalColumn, tokens: Tokens, limit: int | None) -> None:
    values = tokens.values.to_numpy() if limit is not None and len(tokens.values) else np.zeros(0)
    if len(values) and not 0 <= values.min() <= values.max() < (limit or 0):
        wrong = values.min() if values.min() < 0 else values.max()
        raise ValueError(
            f"{file}: column {quoted(column.name)}: id {wrong} is not in [0, {limit}), the rows of table "
            f"{quoted(column.table)}. Prepare the data again."
        )


def _numbers(cells: Any) -> np.ndarray:
    """float64 [N], NaN where null or not finite."""
    with np.errstate(invalid="ignore"):  # of a NaN that signals NumPy warns
        values = np.array(cells.to_numpy(zero_copy_only=False), np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def _tokens(cells: Any, column: CategoricalColumn) -> Tokens:
    if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type) or _is_fixed(cells)):
        return Tokens(values=pl.Series(cells.to_numpy(zero_copy_only=False)))
    values = pl.Series(cells.flatten().to_numpy(zero_copy_only=False))
    if _is_fixed(cells):
        lengths = np.full(len(cells), column.hotness or cells.type.list_size, np.int64)
    else:
        lengths = pc.fill_null(pc.list_value_length(cells), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return Tokens(values=values, lengths=lengths)


def _is_fixed(cells: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(cells.type))


def _lines(file: Path, numbers: set[int]) -> dict[int, str]:
    """Some lines of a vocabulary, by number from 0; as they are written, so that each stays one line."""
    if not file.is_file() or not numbers:
        return {}
    with file.open(encoding="utf-8", newline="\n") as stream:
        return {
            number: line.rstrip("\n")
            for number, line in enumerate(islice(stream, max(0, max(numbers) + 1)))
            if number in numbers
        }
