"""Days: the column of time of a dataset, and the day of each of its cells."""

from __future__ import annotations

from collections.abc import Sequence

from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl

# Looked for in this order where no column is named.
DAY_COLUMNS = ("day", "date", "timestamp", "time", "datetime")

_SECONDS_PER_DAY = 86_400
# Numbers from here on are seconds since 1970 (this is March 1973); smaller ones are numbers of days.
_FIRST_SECONDS = 1e8
# And from here on milliseconds (seconds would be in the year 5138).
_FIRST_MILLISECONDS = 1e11
# A number above it is no time.
_LAST_MILLISECONDS = 1e14


def find_day_column(wanted: str | None, columns: Sequence[str], file: str) -> str:
    """The column of time, "" if there is none.

    Args:
        wanted: its name; None to look for one of `DAY_COLUMNS`.
        columns: of the file.
        file: for messages.

    Raises:
        ValueError: `wanted` is not among them.
    """
    if wanted is not None:
        if wanted not in columns:
            raise ValueError(
                f"{file}: day_column={quoted(wanted)} is not there. Columns: {', '.join(columns)}. Name one of them, "
                "or leave it out for equal parts of the file."
            )
        return wanted
    return next((name for name in DAY_COLUMNS if name in columns), "")


def days_of(cells: pl.Series) -> pl.Series:
    """Text [N]: `2019-05-31` of dates, times and seconds or milliseconds since 1970 (UTC), else the number of the day.

    Args:
        cells: dates, times, numbers, or any of them as text; null and unreadable cells give null.
    """
    if cells.dtype in (pl.Date, pl.Datetime):
        return cells.cast(pl.Date).cast(pl.String)
    if cells.dtype == pl.String:
        text = cells.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        # what stands behind the date of a time does not matter
        dates = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.String)
    elif cells.dtype.is_numeric():
        numbers = cells.cast(pl.Float64)
        dates = pl.Series([None] * len(cells), dtype=pl.String)
    else:
        return pl.Series([None] * len(cells), dtype=pl.String)
    value = pl.col("number")
    seconds = pl.when(value >= _FIRST_MILLISECONDS).then(value / 1000).otherwise(value)
    date = (seconds / _SECONDS_PER_DAY).floor().cast(pl.Int32, strict=False).cast(pl.Date).cast(pl.String)
    number = value.floor().cast(pl.Int64, strict=False).cast(pl.String)
    usable = value.is_finite() & (value.abs() < _LAST_MILLISECONDS)
    named = pl.when(usable & (value >= _FIRST_SECONDS)).then(date).when(usable).then(number)
    frame = pl.DataFrame({"number": numbers, "date": dates})
    return frame.select(pl.coalesce("date", named).alias("day")).to_series()


def days_of_avazu(hours: pl.Series) -> pl.Series:
    """Text [N]: `2014-10-21` of Avazu's hours, 14102100 (YYMMDDHH), numbers or text."""
    text = "20" + hours.cast(pl.String).str.strip_chars()
    return text.str.slice(0, 8).str.to_date("%Y%m%d", strict=False).cast(pl.String)


def in_order(days: Sequence[str]) -> list[str]:
    """Days in the order of time: numbers by value, dates as text."""

    def key(day: str) -> tuple[bool, int, str]:
        is_number = day.lstrip("-").isdigit()
        return (not is_number, int(day) if is_number else 0, day)

    return sorted(days, key=key)
