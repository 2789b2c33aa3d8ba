"""Times in raw cells: how they may be written, and the ids that are made of them.

The steps from texts to seconds are the same for columns of a file and for tensors of a graph: they take operators that
arrays and tensors both have, and are given what differs (`Ops`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tfdlrm.data.cells import parse_text
from tfdlrm.data.polars_extra import pl
from tfdlrm.schema import TIME_IDS, Encoding

_HOUR, _DAY = 3600, 86_400
_TO_THURSDAY = 3  # 1970 began on one
_BLANKS = r"[ \t]*"
# year, month, day, hour, minute, second, then sign, hours and minutes ahead of UTC
_ISO = (
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?"
    r" ?(?:Z|UTC|([+-])([0-9]{2}):?([0-9]{2})?)?)?"
)
_DIGITS = r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})([0-9]{2})?)?)?"
_SHORT_DIGITS = r"([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})"  # Avazu's, YYMMDDHH
_NUMBER = r"([0-9]{9,18}|[0-8][0-9]{18})(?:\.[0-9]*)?"
# A number from here on is of milliseconds, microseconds, nanoseconds since 1970, smaller ones of seconds.
_UNITS = ((10**11, 10**3), (10**14, 10**6), (10**17, 10**9))


class Ops(NamedTuple):
    """What arrays and tensors do not have in common.

    Args:
        groups: a pattern and its number of groups -> bool [N], which texts are of that form as a whole, and int64 [N] a
            group: 0 where there is none, and of a sign 1 for `-`.
        where: as `np.where`.
    """

    groups: Callable[[str, int], tuple[Any, list[Any]]]
    where: Callable[[Any, Any, Any], Any]


def seconds_of(ops: Ops) -> tuple[Any, Any]:
    """int64 [N] whole seconds since 1970 (UTC), and bool [N], whether a text is a time at all.

    Times are `2024-01-31`, `2024-01-31 23:59:59`, with `T`, a fraction, `Z` or `+02:00`; the digits YYYYMMDD, with HH,
    HHMM or HHMMSS behind them; YYMMDDHH where that is no date with a year of four digits; and numbers of seconds to
    nanoseconds since 1970, from 9 digits on. A time that does not say how far it is from UTC is taken for UTC.
    """
    is_iso, iso = ops.groups(_ISO, 9)
    seconds, is_time = _calendar(is_iso, iso[0], iso[1], iso[2], iso[3], iso[4], iso[5])
    ahead = iso[7] * _HOUR + iso[8] * 60
    seconds = seconds - (1 - 2 * iso[6]) * ahead
    is_digits, digits = ops.groups(_DIGITS, 6)
    is_short, short = ops.groups(_SHORT_DIGITS, 4)
    is_number, (number,) = ops.groups(_NUMBER, 1)
    since_1970 = number
    for least, unit in _UNITS:
        since_1970 = ops.where(number >= least, number // unit, since_1970)
    zero = short[0] * 0
    for found, is_one in (
        _within_century(digits, is_digits),
        _calendar(is_short, 2000 + short[0], short[1], short[2], short[3], zero, zero),
        (since_1970, is_number),
    ):
        seconds = ops.where(is_time, seconds, found)
        is_time = is_time | is_one
    return seconds, is_time


def _calendar(matched: Any, year: Any, month: Any, day: Any, hour: Any, minute: Any, second: Any) -> tuple[Any, Any]:
    """Seconds since 1970, and whether there is such a date and time of day."""
    date = _days(year, month, day)
    next_month = _days(year + month // 12, month % 12 + 1, month * 0 + 1)
    is_one = matched & (month >= 1) & (month <= 12) & (day >= 1) & (date < next_month)
    is_one = is_one & (hour <= 23) & (minute <= 59) & (second <= 60)
    return date * _DAY + hour * _HOUR + minute * 60 + second, is_one


def _within_century(parts: list[Any], matched: Any) -> tuple[Any, Any]:
    """Digits are taken for a date only where its year is near: others are numbers."""
    year, month, day, hour, minute, second = parts
    return _calendar(matched & (year >= 1900) & (year <= 2099), year, month, day, hour, minute, second)


def _days(year: Any, month: Any, day: Any) -> Any:
    """Days from 1970-01-01 in the Gregorian calendar; years begin in March, so that February is at the end."""
    year = year - 1 + (month + 9) // 12
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + of_year - 719_468


def ids_of_seconds(encoding: Encoding, seconds: Any) -> Any:
    """1 + the hour of the day, or 1 + the day of the week from Monday, of whole seconds since 1970."""
    place = seconds // _HOUR if encoding == "hour" else seconds // _DAY + _TO_THURSDAY
    return place % TIME_IDS[encoding] + 1


def seconds_of_cells(cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """`seconds_of` for a column: text, numbers, dates or times."""
    if cells.dtype in (pl.Date, pl.Datetime):
        moments = cells.cast(pl.Datetime("us")).dt.epoch("s")
        return moments.fill_null(0).to_numpy(), moments.is_not_null().to_numpy()
    texts = parse_text(cells)

    def groups(pattern: str, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        whole = f"^{_BLANKS}{pattern}{_BLANKS}$"
        if not texts.str.contains(whole).any():  # three of four forms, as a rule
            return np.zeros(len(texts), bool), [np.zeros(len(texts), np.int64)] * number
        found = texts.str.extract_groups(whole).struct.unnest()
        columns = [found[:, place].fill_null("") for place in range(number)]
        matched = found[:, 0].is_not_null().to_numpy()
        return matched, [_whole(column) for column in columns]

    return seconds_of(Ops(groups, np.where))


def _whole(digits: pl.Series) -> np.ndarray:
    signs = digits.replace({"-": "1", "+": "0", "": "0"})
    return signs.cast(pl.Int64).to_numpy()


def seconds_of_text(cells: pl.Series) -> pl.Series:
    """Float64 [N]: seconds since 1970 of texts such as `2024-01-31` and `2024-01-31 23:59:59.5+02:00`; null of others.

    Digits alone are none: they may be names as well.
    """
    like_dates = cells.str.contains(r"^\s*[0-9]{4}-").fill_null(False)
    if not like_dates.any():
        return pl.Series(cells.name, [None] * len(cells), dtype=pl.Float64)
    seconds, is_time = seconds_of_cells(cells)
    is_time &= like_dates.to_numpy()
    fraction = cells.str.extract(r"(\.[0-9]+)[^.]*$").cast(pl.Float64, strict=False).fill_null(0.0)
    return (pl.Series(seconds).cast(pl.Float64) + fraction).set(pl.Series(~is_time), None)
