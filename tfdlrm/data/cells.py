"""Cells to plain types, numbers and tokens: whole columns at once, with a mask of the rows that do not fit.

Text columns (CSV, TSV) and typed columns (Parquet) go through the same functions, so that the same rows give the
same tensors whatever the file they came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl
from tfdlrm.schema import CategoricalColumn

BLANKS = " \t\n\v\f\r"  # that `raw.strip` takes off: those of ASCII, as exports know no others
NAN = "NaN"  # as a text that stands for a missing value
_INT64_END = 2.0**63


def parse_text(cells: pl.Series) -> pl.Series:
    """Cells as text; an empty cell is the empty text, a value like any other.

    The same value is the same text whatever its type: 5, 5.0 of a float or decimal column, and "5"; NaN is empty.
    """
    if cells.dtype.is_nested():
        raise ValueError(
            f"column {quoted(cells.name)} has dtype {cells.dtype}. Single values are expected; set hotness."
        )
    if cells.dtype.is_float():
        cells = cells.fill_nan(None)
        whole = (cells == cells.floor()) & (cells.abs() < _INT64_END)
        digits = cells.set(~whole.fill_null(False), None).cast(pl.Int64).cast(pl.String)
        return digits.zip_with(digits.is_not_null(), cells.cast(pl.String)).fill_null("")
    return cells.cast(pl.String).fill_null("")


def hide_missing(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    """Columns with the cells that stand for a missing value empty.

    Of text, blanks around it do not count; where `nan` is one of `missing` (in any case), so is that of floats.
    """
    if not missing:
        return frame
    cells = pl.col(pl.String)
    frame = frame.with_columns(pl.when(cells.str.strip_chars().is_in(missing)).then(None).otherwise(cells).name.keep())
    has_nan = any(text.lower() == NAN.lower() for text in missing)
    return frame.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None)) if has_nan else frame


def plain_types(frame: pl.DataFrame, missing: Sequence[str] = ()) -> pl.DataFrame:
    """A typed file's columns in the types that the functions here know.

    Fixed-size lists become lists, dictionaries text, decimals whole numbers where they are and else text, bytes text.

    Args:
        frame: columns as they were read.
        missing: see `hide_missing`.

    Raises:
        ValueError: a type that no column can have (maps, structs, durations, lists of lists, bytes that are no text).
    """
    return hide_missing(frame.with_columns([plain_column(frame[name]) for name in frame.columns]), missing)


def plain_column(cells: pl.Series) -> pl.Series:
    """One column of `plain_types`."""
    if isinstance(cells.dtype, pl.Array):
        cells = cells.arr.to_list()
    if isinstance(cells.dtype, pl.List):
        inner_type = cells.dtype.inner
        if inner_type == pl.String or (inner_type.is_numeric() and not isinstance(inner_type, pl.Decimal)):
            return cells
        inner = plain_column(pl.Series(cells.name, cells.explode(), dtype=cells.dtype.inner))
        if inner.dtype.is_nested():
            raise _unknown_type(cells)
        return cells if inner.dtype == cells.dtype.inner else cells.cast(pl.List(inner.dtype))
    if isinstance(cells.dtype, (pl.Categorical, pl.Enum)):
        return cells.cast(pl.String)
    if isinstance(cells.dtype, pl.Decimal):
        text = cells.cast(pl.String).str.replace(r"\.0*$", "").str.replace(r"(\.\d*?)0+$", "$1")
        integers = text.str.to_integer(strict=False)
        return text if integers.null_count() > cells.null_count() else integers
    if isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone is not None:
        # as text, a time of its own zone would not be in the order of time
        return cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if cells.dtype == pl.Binary:
        try:
            return cells.cast(pl.String)
        except pl.exceptions.PolarsError as error:
            raise ValueError(
                f"column {quoted(cells.name)} holds bytes that are not UTF-8. Convert the column to text (hex, say)."
            ) from error
    is_known = cells.dtype.is_numeric() or cells.dtype in (
        pl.String,
        pl.Boolean,
        pl.Null,
        pl.Date,
        pl.Datetime,
        pl.Time,
    )
    if not is_known:
        raise _unknown_type(cells)
    return cells


def _unknown_type(cells: pl.Series) -> ValueError:
    return ValueError(
        f"column {quoted(cells.name)} has dtype {cells.dtype}, of which no feature can be made. Convert the column "
        "to numbers, text, or lists of either, or leave it out."
    )


# Every integer of smaller magnitude is exact in floats of these types: of others the last digits are lost.
_MAX_EXACT: dict[type[pl.DataType], float] = {pl.Float64: 2.0**53, pl.Float32: 2.0**24}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A numeric column.

    Args:
        values: float64 [N]; anything where empty or wrong.
        empty: bool [N], the cell is empty.
        wrong: bool [N], the cell is not a number.
    """

    values: np.ndarray
    empty: np.ndarray
    wrong: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Cells of one categorical column.

    Args:
        values: one token an id: integers (`integer`, `hex`) or strings (`vocabulary`, `hash`).
        lengths: int64 [rows], ids a bag; None where every row has exactly one.
        weights: float32, one a token, or None.
    """

    values: pl.Series
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> Tokens:
        """The rows where `rows` (bool) holds."""
        chosen = rows if self.lengths is None else np.repeat(rows, self.lengths)
        return Tokens(
            values=self.values.filter(pl.Series(chosen)),
            lengths=None if self.lengths is None else self.lengths[rows],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def slice(self, start: int, stop: int) -> Tokens:
        """Rows [start, stop)."""
        low, high = start, stop
        if self.lengths is not None:
            low, high = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        return Tokens(
            values=self.values[low:high],
            lengths=None if self.lengths is None else self.lengths[start:stop],
            weights=None if self.weights is None else self.weights[low:high],
        )

    def rows(self) -> np.ndarray:
        """int64, the row of every token."""
        if self.lengths is None:
            return np.arange(len(self.values))
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def parse_numbers(cells: pl.Series) -> Numbers:
    """Cells of text, numbers or booleans as float64.

    Raises:
        ValueError: the column is of another type.
    """
    if cells.dtype == pl.String:
        parsed = cells.cast(pl.Float64, strict=False)
        empty = np.zeros(len(cells), bool)
        if parsed.null_count():
            # Only what did not parse at once is looked at again: blanks around a number, and empty cells.
            again = parsed.is_null().to_numpy()
            text = cells.filter(again).fill_null("").str.strip_chars()
            parsed = parsed.scatter(np.flatnonzero(again), text.cast(pl.Float64, strict=False))
            empty[again] = (text == "").to_numpy()
    elif cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        empty = cells.is_null().to_numpy()
        parsed = cells.cast(pl.Float64)
    elif cells.dtype == pl.Null:
        empty, parsed = np.ones(len(cells), bool), cells.cast(pl.Float64)
    else:
        raise ValueError(
            f"column {quoted(cells.name)} has dtype {cells.dtype}. Numbers are expected; convert the column."
        )
    wrong = parsed.is_null().to_numpy() & ~empty
    return Numbers(values=parsed.fill_null(0.0).to_numpy(), empty=empty, wrong=wrong)


def refuse_rounded(cells: pl.Series) -> None:
    """Refuses ids in a column of floats that were rounded: different ids have become one.

    Raises:
        ValueError: names the column and such a value.
    """
    most = _MAX_EXACT.get(type(cells.dtype), 2.0**11)
    rounded = cells.filter((cells.abs() >= most) & cells.is_finite())
    if len(rounded):
        raise ValueError(
            f"column {quoted(cells.name)} holds ids as {cells.dtype} such as {rounded[0]:.0f}, "
            f"and from {most:.0f} on floats "
            "lose the last digits of integers. Write the column as integers or text; pandas makes floats of integers "
            "with missing values, which astype('Int64') prevents."
        )


def parse_integers(cells: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Cells as int64, and a mask of those that are empty or no integer.

    Args:
        cells: text, or numbers (with floats whole).

    Raises:
        ValueError: the column is of another type.
    """
    if cells.dtype == pl.String:
        integers = _integers_of_text(cells, base=10)
    elif cells.dtype.is_integer() or cells.dtype in (pl.Boolean, pl.Null):
        integers = cells.cast(pl.Int64, strict=False)
    elif cells.dtype.is_float():
        refuse_rounded(cells)
        whole = cells == cells.floor()
        integers = cells.set(~whole.fill_null(False), None).cast(pl.Int64, strict=False)
    else:
        raise ValueError(
            f"column {quoted(cells.name)} has dtype {cells.dtype}. Integers are expected; convert the column."
        )
    return integers.fill_null(0), integers.is_null().to_numpy()


def parse_hex(cells: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Criteo's ids: hex text to integers, an empty cell to 0; and a mask of what is no hex number.

    Returns:
        uint32 where every value fits (Criteo's do), else int64.
    """
    if cells.dtype == pl.UInt32 and not cells.null_count():
        return cells, np.zeros(len(cells), bool)
    if cells.dtype != pl.String:
        values, wrong = parse_integers(cells.fill_null(0))
    else:
        parsed = _integers_of_text(cells, base=16, empty="0")
        values, wrong = parsed.fill_null(0), parsed.is_null().to_numpy()
    integers = values.to_numpy()
    if integers.min(initial=0) < 0:
        wrong = wrong | (integers < 0)
        values = values.clip(0, None)
    return (values.cast(pl.UInt32) if integers.max(initial=0) < 2**32 else values), wrong


def _integers_of_text(cells: pl.Series, *, base: int, empty: str = "") -> pl.Series:
    """int64, null where the text is no integer; an empty cell reads as `empty`, and a decimal 5.0 as 5."""
    integers = cells.str.to_integer(base=base, strict=False)
    if integers.null_count():
        again = integers.is_null().to_numpy()
        text = cells.filter(again).fill_null("").str.strip_chars().replace("", empty)
        if base == 10:
            # so tables are written whose column of integers has empty cells elsewhere
            text = text.str.replace(r"^([+-]?\d+)\.0*$", "$1")
        integers = integers.scatter(np.flatnonzero(again), text.str.to_integer(base=base, strict=False))
    return integers


def split_bags(cells: pl.Series, separator: str) -> tuple[pl.Series, np.ndarray]:
    """Cells of several values as one flat series, and the number of values of each.

    Args:
        cells: text with separators (empty pieces are dropped), lists, or single values.
        separator: for text.
    """
    if cells.dtype.is_nested():
        bags = cells
    elif cells.dtype == pl.String:
        bags = cells.fill_null("").str.split(separator)
        bags = bags.list.eval(pl.element().filter(pl.element().str.strip_chars() != ""))
    else:
        bags = cells.to_frame("bag").select(pl.concat_list("bag")).to_series()
        bags = bags.set(cells.is_null(), None)
    lengths = bags.list.len().fill_null(0).to_numpy().astype(np.int64)
    return bags.filter(pl.Series(lengths > 0)).explode(), lengths


def parse_tokens(cells: pl.Series, column: CategoricalColumn) -> tuple[Tokens, np.ndarray]:
    """A categorical column, and a mask of the rows whose cell cannot be one of its ids.

    Args:
        cells: [N].
        column: says how many ids a cell holds and what they are.
    """
    lengths: np.ndarray | None = None
    num_rows = len(cells)
    if column.hotness != 1:
        cells, lengths = split_bags(cells, column.separator)
    elif cells.dtype.is_nested():
        raise ValueError(
            f"column {quoted(column.name)} holds lists, and its hotness is 1. Set hotness: null "
            "(any length) or the length."
        )
    if column.encoding == "integer":
        values, wrong = parse_integers(cells)
    elif column.encoding == "hex":
        values, wrong = parse_hex(cells)
    else:
        if cells.dtype.is_float():
            refuse_rounded(cells)
        values, wrong = parse_text(cells), np.zeros(len(cells), bool)
    tokens = Tokens(values=values, lengths=lengths)
    if lengths is None:
        return tokens, wrong
    return tokens, np.bincount(tokens.rows()[wrong], minlength=num_rows) > 0
