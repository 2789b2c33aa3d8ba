"""Rows on their way in: raw cells (`FrameBlock`), parsed and checked by RowParser (`RawRows`) before ids are known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.cells import BLANKS, Tokens, parse_numbers, parse_text, parse_tokens, plain_types, split_bags
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.quarantine import Problems, Quarantine
from tfdlrm.data.times import ids_of_seconds, seconds_of_cells
from tfdlrm.data.transforms import transform_dense
from tfdlrm.schema import DERIVED, ROW_ID, TIME_IDS, CategoricalColumn, DenseColumn, FeatureSpec


@dataclass(frozen=True, kw_only=True)
class FrameBlock:
    """Rows of one block with their raw columns.

    Args:
        load: makes the columns, as text or typed; called once, when they are first asked for.
        lines: int64 [rows], where each row stands in its file.
        numbers: int64 [rows], number of each among all rows read, good and bad, from 0.
        raw: row of the block to its text as found.
        cell: (row, column) to the cell as found; None where the columns are as they were found.
    """

    load: Callable[[], pl.DataFrame]
    lines: np.ndarray
    numbers: np.ndarray
    raw: Callable[[int], bytes]
    cell: Callable[[int, str], str] | None = None

    @functools.cached_property
    def frame(self) -> pl.DataFrame:
        """The columns."""
        return self.load()

    def cell_text(self, row: int, column: str) -> str:
        """One cell, for a message."""
        if self.cell is not None:
            return self.cell(row, column)
        found = self.frame[column][row]
        return "" if found is None else str(found)


def typed_block(
    frame: pl.DataFrame, numbers: np.ndarray, *, missing: Sequence[str] = (), ignored: Sequence[str] = ()
) -> FrameBlock:
    """A block of typed columns, whose rows stand in lines by their number, from 1.

    Args:
        frame: all columns, as they were found.
        numbers: int64 [rows], see `FrameBlock`.
        missing: texts of cells that are read as empty.
        ignored: columns that are passed over.
    """
    return FrameBlock(
        load=functools.partial(plain_types, frame.drop(ignored, strict=False), missing),
        lines=numbers + 1,
        numbers=numbers,
        raw=functools.partial(row_as_text, frame),
    )


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """Parsed rows of one block.

    Args:
        lines: int64 [N].
        labels: float32 [N, tasks].
        dense: float32 [N, num_dense], transformed but for columns in `unscaled`.
        unscaled: float64 [N] raw values of the `standardize` columns, by name.
        tokens: by categorical column.
        keys: series [N] by key column, and `row_id`.
    """

    lines: np.ndarray
    labels: np.ndarray
    dense: np.ndarray
    unscaled: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    keys: Mapping[str, pl.Series] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of rows, N."""
        return len(self.lines)

    def select(self, rows: np.ndarray) -> RawRows:
        """The rows where `rows` (bool) holds; all of them without copying."""
        if rows.all():
            return self
        return RawRows(
            lines=self.lines[rows],
            labels=self.labels[rows],
            dense=self.dense[rows],
            unscaled={name: values[rows] for name, values in self.unscaled.items()},
            tokens={name: tokens.select(rows) for name, tokens in self.tokens.items()},
            keys={name: values.filter(pl.Series(rows)) for name, values in self.keys.items()},
        )

    def slice(self, start: int, stop: int) -> RawRows:
        """Rows [start, stop), as views."""
        return RawRows(
            lines=self.lines[start:stop],
            labels=self.labels[start:stop],
            dense=self.dense[start:stop],
            unscaled={name: values[start:stop] for name, values in self.unscaled.items()},
            tokens={name: tokens.slice(start, stop) for name, tokens in self.tokens.items()},
            keys={name: values[start:stop] for name, values in self.keys.items()},
        )


def row_as_text(frame: pl.DataFrame, row: int) -> bytes:
    """One row with tabs between its cells: the raw text of a row that has no text of its own."""
    return "\t".join("" if cell is None else str(cell) for cell in frame.row(row)).encode()


class RowParser:
    """Parses blocks of rows by a schema.

    Everything a cell can be wrong in by itself is found here; what needs the whole training part (vocabularies,
    statistics) comes later, in `tfdlrm.data.prepare`.

    Args:
        spec: the columns.
        quarantine: where bad rows go.
        id_modulo: integer and hex ids are taken modulo this; None for no modulo.
        with_labels: the label columns are there; otherwise labels are NaN.
        empty_labels: so is the label of a row whose cell is empty, which is a bad row otherwise.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        quarantine: Quarantine,
        *,
        id_modulo: int | None = None,
        with_labels: bool = True,
        empty_labels: bool = False,
    ) -> None:
        self._spec = spec
        self._quarantine = quarantine
        self._id_modulo = id_modulo
        self._with_labels = with_labels
        self._empty_labels = empty_labels
        if id_modulo is not None and not any(c.encoding in ("integer", "hex") for c in spec.categorical):
            raise ValueError(
                f"id_modulo={id_modulo}: no categorical column has encoding 'integer' or 'hex', "
                "so there is nothing to take it of. Remove id_modulo."
            )

    def parse(self, block: FrameBlock, *, file: str) -> RawRows:
        """The good rows of a block.

        Args:
            block: the rows with their raw columns.
            file: for messages.

        Raises:
            BadRowError: a bad row, if the quarantine's mode is `error`.
            ValueError: a whole column has the wrong type.
        """
        frame = block.frame
        problems = Problems(frame.height)
        labels = self._labels(frame, problems)
        dense, unscaled = self._dense(frame, problems)
        tokens = {column.name: self._tokens(frame, column, problems) for column in self._spec.categorical}
        keys = {name: frame[name] for name in self._spec.keys if name != ROW_ID}
        keys[ROW_ID] = frame[ROW_ID] if ROW_ID in frame.columns else pl.Series(ROW_ID, block.numbers)
        rows = RawRows(
            lines=block.lines,
            labels=labels,
            dense=dense,
            unscaled=unscaled,
            tokens=tokens,
            keys=keys,
        )
        if problems.bad.any():
            self._quarantine.add_all(
                problems.bad_rows(file, block.lines, lambda column, row: block.cell_text(row, column), block.raw)
            )
        return rows.select(~problems.bad)

    def _labels(self, frame: pl.DataFrame, problems: Problems) -> np.ndarray:
        labels = np.full((frame.height, len(self._spec.labels)), np.nan, np.float32)
        if self._with_labels:
            for task, name in enumerate(self._spec.labels):
                if name in self._spec.raw.label_values:
                    labels[:, task] = self._named_labels(frame[name], problems)
                    continue
                numbers = parse_numbers(frame[name])
                empty = numbers.empty | np.isnan(numbers.values)
                wrong = numbers.wrong | ~(np.isin(numbers.values, (0.0, 1.0)) | empty)
                wrong |= empty & (not self._empty_labels)
                problems.mark(wrong, name, "the label is not 0 or 1", "Give 0 or 1.")
                labels[:, task] = np.where(empty, np.nan, numbers.values)
        return labels

    def _named_labels(self, cells: pl.Series, problems: Problems) -> np.ndarray:
        zero, one = self._spec.raw.label_values[cells.name]
        texts = parse_text(cells).str.strip_chars()
        is_one, is_empty = (texts == one).to_numpy(), (texts == "").to_numpy()
        two = f"{quoted(zero)} or {quoted(one)}"
        fix = f"Give {two}, or correct label_values of the schema."
        known = is_one | (texts == zero).to_numpy() | (is_empty & self._empty_labels)
        problems.mark(~known, cells.name, f"the label is not {two}", fix)
        return np.where(is_empty, np.nan, is_one).astype(np.float32)

    def _dense(self, frame: pl.DataFrame, problems: Problems) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dense = np.zeros((frame.height, self._spec.num_dense), np.float32, order="F")  # filled by columns
        unscaled: dict[str, np.ndarray] = {}
        for place, column in enumerate(self._spec.dense):
            values = self._dense_values(frame, column, problems)
            if column.transform == "standardize":
                unscaled[column.name] = values
            else:
                dense[:, place] = transform_dense(column, values)
        return dense, unscaled

    def _dense_values(self, frame: pl.DataFrame, column: DenseColumn, problems: Problems) -> np.ndarray:
        values, empty = self._numbers(frame[column.name], problems)
        if column.missing is None:
            fix = "Fill it, or give the value to use in the schema (missing: 0)."
            problems.mark(empty, column.name, "the cell is empty", fix)
        elif empty.any():
            values = np.where(empty, column.missing, values)
        return values

    def _numbers(self, cells: pl.Series, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
        """float64 [N], finite in float32, and bool [N], the cells that are empty."""
        numbers = parse_numbers(cells)
        values = numbers.values
        problems.mark(numbers.wrong, cells.name, "not a number", "Give a number, or an empty cell for a missing one.")
        with np.errstate(over="ignore", invalid="ignore"):
            infinite = ~np.isfinite(values.astype(np.float32)) & ~numbers.empty
        if infinite.any():
            fix = "Give a finite number of at most 3.4e38, or an empty cell for a missing one."
            problems.mark(infinite, cells.name, "NaN, infinite or too large for float32", fix)
            values = np.where(infinite, 0.0, values)
        return values, numbers.empty

    def _derived(self, cells: pl.Series, column: CategoricalColumn, problems: Problems) -> Tokens:
        """Of numbers, float32 with NaN for missing ones: bins are known once they are fitted; of times, ids."""
        if column.encoding not in TIME_IDS:
            values, empty = self._numbers(cells, problems)
            return Tokens(values=pl.Series(np.where(empty, np.nan, values).astype(np.float32)))
        seconds, is_time = seconds_of_cells(cells)
        empty = (parse_text(cells).str.strip_chars() == "").to_numpy()
        fix = "Give 2024-01-31 23:59:59, YYYYMMDDHH, or seconds since 1970; or an empty cell for a missing one."
        problems.mark(~is_time & ~empty, column.raw_name, "not a time", fix)
        return Tokens(values=pl.Series(np.where(is_time, ids_of_seconds(column.encoding, seconds), 0)))

    def _tokens(self, frame: pl.DataFrame, column: CategoricalColumn, problems: Problems) -> Tokens:
        if column.encoding in DERIVED:
            return self._derived(frame[column.raw_name], column, problems)
        tokens, wrong = parse_tokens(frame[column.name], column)
        if self._spec.raw.strip and tokens.values.dtype == pl.String:
            tokens = replace(tokens, values=tokens.values.str.strip_chars(BLANKS))
        kind = {"integer": "an integer of 64 bits with sign", "hex": "a hex number of at most 63 bits"}.get(
            column.encoding, "text"
        )
        problems.mark(wrong, column.name, f"not {kind}", f"Give {kind}, or change the column's encoding.")
        if column.hotness is not None and tokens.lengths is not None:
            fix = f"Give {column.hotness} ids separated by {quoted(column.separator)}, or set hotness: null."
            problems.mark(tokens.lengths != column.hotness, column.name, f"not {column.hotness} ids", fix)
        if self._id_modulo is not None and column.encoding in ("integer", "hex"):
            values = np.mod(tokens.values.cast(pl.Int64).to_numpy(), self._id_modulo)
            tokens = Tokens(values=pl.Series(values), lengths=tokens.lengths)
        if column.encoding == "integer" and column.id_policy == "error":
            self._check_range(tokens, column, problems)
        if column.weights:
            tokens = self._with_weights(frame, column, tokens, problems)
        return tokens

    def _check_range(self, tokens: Tokens, column: CategoricalColumn, problems: Problems) -> None:
        size = self._spec.vocabulary_sizes.get(column.table)
        outside = (tokens.values < 0).to_numpy()
        if size is not None:
            outside = outside | (tokens.values >= size).to_numpy()
        rows = np.bincount(tokens.rows()[outside], minlength=len(problems.bad)) > 0
        bounds = "is negative" if size is None else f"is not in [0, {size}), the rows of table {quoted(column.table)}"
        fix = "Correct it, raise vocabulary_sizes, or set id_policy: clip, modulo, oov or hash."
        problems.mark(rows, column.name, f"the id {bounds}", fix)

    def _with_weights(
        self, frame: pl.DataFrame, column: CategoricalColumn, tokens: Tokens, problems: Problems
    ) -> Tokens:
        cells, lengths = frame[column.weights], np.ones(frame.height, np.int64)
        if tokens.lengths is not None:
            cells, lengths = split_bags(cells, column.separator)
        numbers = parse_numbers(cells)
        with np.errstate(over="ignore", invalid="ignore"):
            found = numbers.values.astype(np.float32)
        wrong = numbers.wrong | numbers.empty | ~np.isfinite(found)
        rows = np.repeat(np.arange(frame.height), lengths)
        reason = "a weight is not a finite number of float32"
        problems.mark(np.bincount(rows[wrong], minlength=frame.height) > 0, column.weights, reason, "Give a number.")
        unequal = lengths != (1 if tokens.lengths is None else tokens.lengths)
        fix = f"Give one weight for each id of {quoted(column.name)}."
        problems.mark(unequal, column.weights, "another number of weights than ids", fix)
        weights = found
        if tokens.lengths is not None and unequal.any():
            # Those rows are bad and leave together with their tokens, so their weights must be as many as these.
            weights = np.zeros(len(tokens.values), np.float32)
            weights[np.repeat(~unequal, tokens.lengths)] = found[np.repeat(~unequal, lengths)]
        return Tokens(values=tokens.values, lengths=tokens.lengths, weights=weights)


def parse_key(cells: pl.Series) -> np.ndarray:
    """A key column as int64 if every cell is a plain integer (no leading zeros), else as text; an empty cell is "".

    Floats stay floats where none is empty: they are times.
    """
    if cells.dtype.is_float() and not cells.fill_nan(None).null_count():
        return cells.to_numpy()
    if cells.dtype.is_integer() and not cells.null_count():
        integers = cells.cast(pl.Int64, strict=False)
        if not integers.null_count():
            return integers.to_numpy()
    text = parse_text(cells)
    integers = text.str.to_integer(strict=False)
    if not integers.null_count() and (integers.cast(pl.String) == text).all():
        return integers.to_numpy()
    return text.to_numpy().astype(object)
