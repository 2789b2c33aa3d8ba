"""Times that are written as text."""

from __future__ import annotations

from tfdlrm.data.polars_extra import pl

_SECONDS_PER_DAY = 86_400
# date, then maybe a time of day, then maybe how far that is from UTC
_ISO_TIME = (
    r"^\s*(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?\s*(?:Z|UTC|([+-]\d{2}):?(\d{2})?)?)?\s*$"
)


def seconds_of_text(cells: pl.Series) -> pl.Series:
    """Float64 [N]: seconds since 1970 of texts such as `2024-01-31` and `2024-01-31 23:59:59+02:00`; null of others.

    A time that does not say how far it is from UTC is taken for UTC.
    """
    found = cells.str.extract_groups(_ISO_TIME).struct.unnest()
    date, hour, minute, second, ahead, ahead_minutes = (found[:, place] for place in range(6))
    days = date.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)
    hours, minutes, seconds = (part.fill_null("0").cast(pl.Float64) for part in (hour, minute, second))
    offset = ahead.fill_null("0").cast(pl.Float64) * 3600
    sign = ahead.str.starts_with("-").fill_null(False).replace_strict({True: -1.0, False: 1.0})
    offset = offset + sign * ahead_minutes.fill_null("0").cast(pl.Float64) * 60
    total = days * _SECONDS_PER_DAY + hours * 3600 + minutes * 60 + seconds - offset
    return total.set((hours > 23) | (minutes > 59) | (seconds >= 61), None)
