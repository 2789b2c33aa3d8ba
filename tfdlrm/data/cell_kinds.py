"""What cells look like: marks of missing values, numbers, amounts, times, several values in one, and labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tfdlrm.checks import count_of, quoted
from tfdlrm.data.cells import NAN
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.times import ids_of_seconds, seconds_of_cells, seconds_of_text
from tfdlrm.data.transforms import bin_ids, fit_bins, transform_dense
from tfdlrm.schema import DEFAULT_BINS, CategoricalColumn, DenseColumn, Encoding

# Texts that may stand for a missing value: the first ones anywhere, the others among numbers only.
_MARKS = ("?", "\\N", "NULL", "null", "<NA>")
_MARKS_AMONG_NUMBERS = ("NA", "N/A", "n/a", "NaN", "nan", "None", "none", "-", ".")
# (text of 0, text of 1), in lower case
_KNOWN_LABELS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("-1", "1"), ("negative", "positive"))
_SEPARATORS = ("|", ";", ",")  # between the values of a cell; a blank only where every piece is a number
_MOST = 3.4e38  # of float32
LONG_TAIL = 5.0  # the 99th percentile by the median; of a normal distribution 2, of an exponential one 6.6
_FEW_VALUES = 12  # so many different whole numbers are kinds of something, and not amounts
_MOST_LEVELS = 256  # numbers without gaps, up to so many, are amounts: ages, years
_NAMES_OF_IDS = re.compile(
    r"(^|[_\W])(id|code|zip|type|category|cat|class|kind)s?([_\W]|$)|(Id|ID|Code|Type)$"
    r"|(^|[_\W])(user|customer|member|item|product|sku|shop|store|account|session|order|device|site|page|campaign|ad)$",
    re.I,
)
_NAMES_OF_AMOUNTS = re.compile(
    r"(^|[_\W])(price|cost|amount|cents|balance|income|revenue|count|cnt|total|sum|views|visits|clicks|size"
    r"|length|width|height|weight|age|score|duration|seconds|secs|minutes|hours|days|ms|distance|rate)([_\W]|$)"
    r"|(^|[_\W])(num|nb|n)[_\W]",
    re.I,
)
_NAMES_OF_TIMES = re.compile(
    r"(^|[_\W])(time|timestamp|date|datetime|ts|day|hour|when)([_\W]|$)|(Time|Date|At)$|_at$", re.I
)
_TIME_RANGES = ((8e8, 2.2e9, "seconds since 1970"), (8e11, 2.2e12, "milliseconds since 1970"))  # from 1995 on
_ROWS_A_BIN = 50  # fewer tell little of the label's rate
_PRIOR_ROWS = 10.0  # at the rate of all rows, that each bin has beside its own
_SURE = 3.0  # standard errors
_SECONDS_PER_DAY = 86_400
_DAYS_FOR_HOURS, _DAYS_FOR_WEEKDAYS = 2, 14
_WITH_COMMAS = ("numbers with separators of thousands", "1234")
# (pattern of a cell, (what cells are, how they are to be written))
_OTHER_FORMS = (
    (r"^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}( .*)?$|^\d{4}/\d{1,2}/\d{1,2}( .*)?$", ("dates", "2024-01-31")),
    (r"^[A-Za-z]{3,9}\.? \d{1,2},? \d{4}( .*)?$", ("dates", "2024-01-31")),
    (r"^\d{1,2}[ -][A-Za-z]{3,9}\.?[ -]\d{2,4}( .*)?$", ("dates", "2024-01-31")),
    (r"^[-+]?\d+(\.\d+)? ?%$", ("percentages", "0.25 or 25")),
    (r"^[-+]?[$€£] ?[-+]?[\d.,]+$|^[-+]?[\d.,]+ ?[$€£]$", ("amounts of money", "1234.50")),
    (r"^[-+]?\d{1,3}(,\d{3})*(\.\d+)?$|^[-+]?\d+(\.\d+)?$", _WITH_COMMAS),
    (r"^[-+]?\d+,\d+$|^[-+]?\d{1,3}(\.\d{3})+,\d+$", ("numbers with a decimal comma", "1234.5")),
)


def value_counts(cells: pl.Series) -> list[tuple[Any, int]]:
    """(value, rows), the most frequent first; of those that are as frequent, the least."""
    counts = cells.value_counts(name="rows")
    return counts.sort(["rows", cells.name], descending=[True, False]).rows()


def find_marks(frame: pl.DataFrame) -> tuple[str, ...]:
    """Texts that stand for a missing value in these columns."""
    found = set()
    for cells in frame.select(pl.col(pl.String)).get_columns():
        texts = cells.str.strip_chars()
        values = texts.unique()
        found |= set(_MARKS).intersection(values.to_list())
        others = values.filter(~values.is_in([*_MARKS, *_MARKS_AMONG_NUMBERS, ""]).fill_null(True))
        if len(others) and not others.cast(pl.Float64, strict=False).null_count():
            found |= set(_MARKS_AMONG_NUMBERS).intersection(values.to_list())
    if any(cells.is_nan().any() for cells in frame.select(pl.col(pl.Float32, pl.Float64)).get_columns()):
        found.add(NAN)
    return tuple(mark for mark in (*_MARKS, *_MARKS_AMONG_NUMBERS) if mark in found)


def marks_of(frame: pl.DataFrame, marks: Sequence[str]) -> dict[str, str]:
    """Column of text -> which marks it has, in words."""
    found = {}
    for cells in frame.select(pl.col(pl.String)).get_columns():
        own = cells.str.strip_chars().unique()
        words = [quoted(mark) for mark in marks if mark in own]
        if words:
            found[cells.name] = f" or {', '.join(words)}"
    return found


def pair_of_labels(found: Sequence[str], positive: str | None) -> tuple[str, str] | None:
    """Of two texts in order that of label 0 and that of label 1; None where it has to be said."""
    first, second = found
    if positive is not None:
        wanted = positive.strip()
        return {first: (second, first), second: (first, second)}.get(wanted)
    if found == ["0", "1"]:
        return first, second
    for zero, one in _KNOWN_LABELS:
        if (first.lower(), second.lower()) in ((zero, one), (one, zero)):
            return (first, second) if first.lower() == zero else (second, first)
    return None


def numbers_of(there: pl.Series) -> pl.Series | None:
    """float64, if every cell is a finite number that is written as one: 007 is none."""
    if there.dtype == pl.Boolean or not (there.dtype.is_numeric() or there.dtype == pl.String):
        return None
    if there.dtype == pl.String:
        text = there.str.strip_chars()
        if text.str.contains(r"^[-+]?0\d").any():
            return None
        there = text
    numbers = there.cast(pl.Float64, strict=False)
    return None if numbers.null_count() or not (numbers.abs() < _MOST).all() else numbers


def is_infinite(cells: pl.Series) -> pl.Series:
    """bool [N]: infinite numbers, also as texts."""
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars().cast(pl.Float64, strict=False)
    return cells.is_infinite().fill_null(False) if cells.dtype.is_float() else cells.is_null() & False


def whole_numbers_of(there: pl.Series) -> pl.Series | None:
    """int64, if every cell is a whole number that a float holds exactly."""
    numbers = numbers_of(there.drop_nulls())
    if numbers is None or not len(numbers) or not (numbers == numbers.floor()).all() or numbers.abs().max() >= 2**53:  # type: ignore[operator]
        return None
    return numbers.cast(pl.Int64)


def has_long_numbers(there: pl.Series) -> bool:
    """Whether cells are whole numbers, and some beyond what a float can tell apart."""
    text = there.cast(pl.String).str.strip_chars()
    return bool(text.str.contains(r"^[-+]?\d+$").all()) and int(text.str.len_chars().max()) > 15  # type: ignore[arg-type]


def is_named_as_id(name: str) -> bool:
    """Whether a column's name says that its numbers are names."""
    return _NAMES_OF_IDS.search(name) is not None


def is_amount(name: str, numbers: pl.Series, values: int) -> bool:
    """Whether numbers say how much, and not which."""
    if not (numbers == numbers.floor()).all():
        return True
    if values <= _FEW_VALUES or is_named_as_id(name):
        return False
    if _NAMES_OF_AMOUNTS.search(name) is not None:
        return True
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    if max(-low, high) >= 2**53:
        return False
    if low < 0.0 or (values <= _MOST_LEVELS and high - low + 1 <= 3 * values):
        return True
    # counts: the least value is the most frequent one, or there is a long tail
    middle, tail = (float(numbers.quantile(share) or 0.0) for share in (0.5, 0.99))
    return value_counts(numbers)[0][0] == low or tail >= LONG_TAIL * max(middle, 1.0)


def time_of(there: pl.Series) -> str | None:
    """What kind of time cells are, in order as they are written; None where they are none."""
    if isinstance(there.dtype, (pl.Date, pl.Datetime)):
        return "date" if there.dtype == pl.Date else "date and time"
    numbers = numbers_of(there)
    if numbers is None:
        if there.dtype != pl.String or seconds_of_text(there).null_count():
            return None
        return "date" if (there.str.strip_chars().str.len_chars() == 10).all() else "date and time"
    low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    is_named = _NAMES_OF_TIMES.search(there.name) is not None
    is_whole = bool((numbers == numbers.floor()).all())
    if is_whole and _are_calendar_digits(numbers):
        return "YYYYMMDDHH"
    for least, most, kind in _TIME_RANGES:
        if least <= low and high <= most and (is_named or (is_whole and numbers.n_unique() > len(there) // 2)):
            return kind
    if not is_whole or low < 10_000_000 or high > 99_999_999:
        return None
    days = numbers.cast(pl.Int64)
    if (
        low >= 19_000_101
        and high < 21_000_000
        and _are_within(days // 100 % 100, 1, 12)
        and _are_within(days % 100, 1, 31)
    ):
        return "YYYYMMDD"
    hours = _are_within(days % 100, 0, 23) and _are_within(days // 100 % 100, 1, 31)
    is_likely = is_named or days.n_unique() >= _FEW_VALUES  # by chance one number in a hundred is such a time
    return "YYMMDDHH" if is_likely and hours and _are_within(days // 10_000 % 100, 1, 12) else None


def _are_calendar_digits(numbers: pl.Series) -> bool:
    """Whether all are a date with a time of day in 10, 12 or 14 digits, and many enough that this is no chance."""
    if numbers.abs().max() >= 2**53:  # type: ignore[operator]
        return False
    digits = numbers.cast(pl.Int64).cast(pl.String)
    if not digits.str.contains(r"^(?:19|20)\d{8}(?:\d\d){0,2}$").all() or digits.n_unique() < _FEW_VALUES:
        return False
    parts = [digits.str.slice(start, 2).cast(pl.Int64, strict=False) for start in (4, 6, 8, 10, 12)]
    limits = ((1, 12), (1, 31), (0, 23), (0, 59), (0, 60))
    return all(_are_within(part.drop_nulls(), *limit) for part, limit in zip(parts, limits, strict=True))


def _are_within(numbers: pl.Series, least: int, most: int) -> bool:
    return bool(numbers.is_between(least, most).all())


def written_otherwise(there: pl.Series) -> str | None:
    """Of text that is dates or numbers in a form that is not read: how to write it; None of other cells."""
    if there.dtype != pl.String:
        return None
    text = there.str.strip_chars()
    for pattern, what in _OTHER_FORMS:
        fits = text.str.contains(pattern)
        if fits.all() and (what != _WITH_COMMAS or text.str.contains(",", literal=True).any()):
            return f"{what[0]} such as {quoted(there[0])}: write {what[1]} to use them"
    times = seconds_of_text(text)
    if times.null_count() <= 0.1 * len(there) and numbers_of(there) is None:
        odd = there.filter(times.is_null())[0]
        return (
            f"times, but for {count_of(times.null_count(), 'row')} such as {quoted(odd)}: mend them to use the column"
        )
    if 0 < times.null_count() < len(there):
        others = text.filter(times.is_null())
        for pattern, what in _OTHER_FORMS:
            if what[0] == "dates" and others.str.contains(pattern).all():
                first = there.filter(times.is_not_null())[0]
                return (
                    f"dates in two forms, {quoted(first)} and {quoted(others[0])}: write all as {what[1]} to use them"
                )
    return None


def separator_of(there: pl.Series) -> str | None:
    """The separator of cells of several values: pieces repeat more than cells do."""
    if there.dtype != pl.String:
        return None
    for separator in (*_SEPARATORS, " "):
        several = there.str.contains(separator, literal=True)
        if several.mean() < 0.01:  # type: ignore[operator]
            continue
        pieces = there.str.strip_chars().str.split(separator).explode()
        if separator == " " and whole_numbers_of(pieces) is None:
            continue
        if (pieces != "").all() and pieces.n_unique() < there.n_unique():
            return separator
    return None


def mean_length(cells: pl.Series) -> float:
    """Characters a cell, on average."""
    return float(cells.cast(pl.String).str.len_chars().mean() or 0.0)  # type: ignore[arg-type]


def why_no_numbers(text: pl.Series) -> str:
    """A word on text that is nearly all numbers."""
    numbers = text.str.strip_chars().cast(pl.Float64, strict=False)
    wrong = ~(numbers.abs() < _MOST).fill_null(False)
    if wrong.sum() > 0.1 * len(text):
        return ""
    if wrong.any():
        share, odd = 1.0 - int(wrong.sum()) / len(text), text.filter(wrong)[0]
        return f"; {min(share, 0.999):.1%} are numbers, and {quoted(odd)} is not: mend the cells to have it as a number"
    return "; numbers with leading zeros" if numbers_of(text) is None else ""


def parts_of_time(there: pl.Series, *, is_whole: bool) -> tuple[Encoding, ...]:
    """Which encodings tell times apart: `hour` and `weekday`, of rows that go on long enough for each to come again.

    Args:
        there: times.
        is_whole: there are no other rows; else those will come later, too.
    """
    seconds, is_time = seconds_of_cells(there)
    if not is_time.all():
        return ()
    days = np.ptp(seconds) / _SECONDS_PER_DAY
    are_dates = not (seconds % _SECONDS_PER_DAY).any()
    found: list[Encoding] = []
    if not are_dates and (days >= _DAYS_FOR_HOURS or not is_whole):
        found.append("hour")
    if days >= _DAYS_FOR_WEEKDAYS or not is_whole:
        found.append("weekday")
    return tuple(each for each in found if np.ptp(ids_of_seconds(each, seconds)) or not is_whole)


def bends(numbers: np.ndarray, is_one: np.ndarray, transform: str) -> bool:
    """Whether bins tell more of the label than the number does by itself, on rows that neither was fitted on.

    By itself it has a logistic regression; both are fitted on every other row, and compared by log loss on the rest.

    Args:
        numbers: float64 [N].
        is_one: bool [N], the labels.
        transform: of the dense column; `standardize` need not be fitted.
    """
    fitted_on, rest = slice(0, None, 2), slice(1, None, 2)
    bins = min(DEFAULT_BINS, len(numbers[fitted_on]) // _ROWS_A_BIN)
    if bins < 2 or not 0 < is_one[fitted_on].sum() < len(is_one[fitted_on]):
        return False
    column = CategoricalColumn(name="x", encoding="bins", bins=bins)
    values = numbers.astype(np.float32)
    column = replace(column, edges=fit_bins(column, lambda: [values[fitted_on]]))
    if not column.edges:
        return False
    ids = bin_ids(column, values)
    counts, ones = (np.bincount(ids[fitted_on], w, bins + 1) for w in (None, is_one[fitted_on].astype(np.float64)))
    rate = is_one[fitted_on].mean()
    by_bins = ((ones + _PRIOR_ROWS * rate) / (counts + _PRIOR_ROWS))[ids[rest]]
    x = numbers if transform != "log1p" else transform_dense(DenseColumn(name="x", transform="log1p"), numbers)
    by_itself = _logistic(x.astype(np.float64), is_one, fitted_on)[rest]
    better = _log_loss(by_itself, is_one[rest]) - _log_loss(by_bins, is_one[rest])
    return bool(better.mean() > _SURE * better.std() / np.sqrt(len(better)))


def _logistic(x: np.ndarray, is_one: np.ndarray, fitted_on: slice) -> np.ndarray:
    """Probabilities of a logistic regression on one number, by Newton's method."""
    scale = x[fitted_on].std()
    z = (x - x[fitted_on].mean()) / scale if scale > 0.0 else np.zeros_like(x)
    features = np.stack([np.ones_like(z), z], axis=1)
    weights = np.zeros(2)
    for _ in range(20):
        p = 1.0 / (1.0 + np.exp(-np.clip(features[fitted_on] @ weights, -30.0, 30.0)))
        hessian = features[fitted_on].T @ (features[fitted_on] * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        weights += np.linalg.solve(hessian, features[fitted_on].T @ (is_one[fitted_on] - p))
    return 1.0 / (1.0 + np.exp(-np.clip(features @ weights, -30.0, 30.0)))


def _log_loss(p: np.ndarray, is_one: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(np.where(is_one, p, 1.0 - p), 1e-7, 1.0))
