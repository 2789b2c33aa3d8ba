"""Cells to numbers and tokens: whole columns at once, with a mask of the rows that do not fit.

Text columns (CSV, TSV) and typed columns (Parquet) go through the same functions, so that the same rows give the
same tensors whatever the file they came in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.column_types import parse_text
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.raw_rows import Tokens
from tfdlrm.schema import CategoricalColumn

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
