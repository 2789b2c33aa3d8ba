"""Columns of typed files in the few types that rows are parsed from, and values as text."""

from __future__ import annotations

from collections.abc import Sequence

from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl

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
