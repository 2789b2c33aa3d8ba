"""Checks of single values: each returns the value, normalised, or raises a `ValueError` with the fix.

What they see was typed by a person into a YAML file, a flag or a constructor, so every message names the
object, the field, the value found and what to give instead.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")

LONGEST_QUOTE = 200  # characters
_MOST_COMPARED = 10_000  # words, a tenth of a second


def quoted(value: object) -> str:
    """`repr` for a message: at most `LONGEST_QUOTE` characters, then `…`, in time that does not grow with the rest.

    Whatever a file or a client has given may be of any length, and nested as deeply as it likes. Of a string that is
    cut only the shown part tells which quotation marks stand around it.

    Example:
        >>> quoted({"a": [1, 2]}), len(quoted("x" * 10**9))
        ("{'a': [1, 2]}", 201)
    """
    return shortened(_begin_of(value, LONGEST_QUOTE))


def shortened(text: str) -> str:
    """A text of somebody else for a message: its first `LONGEST_QUOTE` characters."""
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "…"


def _begin_of(value: Any, room: int) -> str:
    """The first `room` characters of `repr(value)` or more, or all of it; a string that is cut may have other marks."""
    kind = type(value)
    if kind in (str, bytes):
        return repr(value[: room + 1])
    if kind is int and value.bit_length() > 4 * LONGEST_QUOTE:
        return f"an integer of {value.bit_length()} bits"
    if kind not in _BRACKETS or not value:
        return repr(value)
    begin, end = _BRACKETS[kind]
    text = begin
    for item in value:
        if len(text) > room:
            return text
        text += "" if text == begin else ", "
        text += _begin_of(item, room - len(text))
        if kind is dict and len(text) <= room:
            text += ": " + _begin_of(value[item], room - len(text))
    return text + ("," if kind is tuple and len(value) == 1 else "") + end


_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def nearest(given: object, allowed: Iterable[str]) -> str | None:
    """The allowed word most like `given`, or None where nothing is near."""
    words = list(allowed)
    if len(words) > _MOST_COMPARED:
        return None
    found = difflib.get_close_matches(str(given).lower(), [word.lower() for word in words], n=1, cutoff=0.5)
    return next((word for word in words if found and word.lower() == found[0]), None)


def hint(given: object, allowed: Iterable[str]) -> str:
    """How a sentence about an unknown word ends: `, did you mean 'epochs'?`, or a full stop where nothing is near."""
    near = nearest(given, allowed)
    return f", did you mean {quoted(near)}?" if near else "."


def count_of(number: int, one: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def reject_unknown_keys(object_name: str, given: Iterable[object], allowed: Iterable[str]) -> None:
    """Refuse the first key of `given` that is not in `allowed`, naming the nearest valid one.

    Args:
        object_name: what the keys belong to, as the user knows it (`"TrainConfig"`).
        given: the keys found.
        allowed: the valid keys.

    Raises:
        ValueError: a key is not valid.

    Example:
        >>> reject_unknown_keys("TrainConfig", ["epoch"], ["epochs", "seed"])
        Traceback (most recent call last):
        ValueError: TrainConfig: unknown key 'epoch', did you mean 'epochs'? Valid keys: epochs, seed.
    """
    valid = list(allowed)
    for key in given:
        if key not in valid:
            raise ValueError(
                f"{object_name}: unknown key {quoted(key)}{hint(key, valid)} Valid keys: {', '.join(valid)}."
            )


def check_choice(owner: str, field: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not one of the words in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"{owner}: {field}={quoted(value)} is not known{hint(value, allowed)} Choose one of: {', '.join(allowed)}."
        )


def check_name(owner: str, field: str, value: object) -> str:
    """A non-empty string without surrounding blanks."""
    if not isinstance(value, str) or not value or value != value.strip() or "\0" in value:
        raise ValueError(
            f"{owner}: {field}={quoted(value)} is not a name. Give a non-empty string without "
            "blanks around it or NUL in it."
        )
    return value


def check_text(owner: str, field: str, value: object) -> str:
    """Any string, the empty one included."""
    if not isinstance(value, str):
        raise ValueError(f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give a string.")
    return value


def check_flag(owner: str, field: str, value: object) -> bool:
    """True or False and nothing that merely looks like it (the string "False" is true in Python)."""
    if not isinstance(value, bool):
        raise ValueError(f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give true or false.")
    return value


def check_integer(
    owner: str, field: str, value: object, *, minimum: int | None = None, maximum: int | None = None
) -> int:
    """An integer within `[minimum, maximum]`; booleans and floats are refused, NumPy integers accepted."""
    wanted = "an integer" if minimum is None else f"an integer of {minimum} or more"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give {wanted}.")
    if minimum is not None and value < minimum:
        raise ValueError(f"{owner}: {field}={quoted(value)} is too small. Give {wanted}.")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"{owner}: {field}={quoted(value)} is too large. Give one of {maximum} or less.")
    return int(value)


def check_number(
    owner: str,
    field: str,
    value: object,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number within `[minimum, maximum]` and `(above, below)`, as a float."""
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", minimum), ("<=", maximum), (">", above), ("<", below))
        if bound is not None
    ]
    wanted = " ".join(["a finite number", " and ".join(bounds)]).strip()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give {wanted}.")
    number = float(value)
    inside = (
        math.isfinite(number)
        and (minimum is None or number >= minimum)
        and (maximum is None or number <= maximum)
        and (above is None or number > above)
        and (below is None or number < below)
    )
    if not inside:
        raise ValueError(f"{owner}: {field}={quoted(value)} is out of range. Give {wanted}.")
    return number


def check_optional(check: Callable[..., Value], owner: str, field: str, value: object, **bounds: Any) -> Value | None:
    """`check`, with None passed through."""
    return None if value is None else check(owner, field, value, **bounds)


def check_list(owner: str, field: str, value: object) -> tuple[Any, ...]:
    """A list or tuple, as a tuple. A string is refused: it would come apart into letters."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise ValueError(f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give a list.")
    return tuple(value)


def check_names(owner: str, field: str, value: object) -> tuple[str, ...]:
    """A list of names, as a tuple."""
    return tuple(check_name(owner, f"{field}[{i}]", name) for i, name in enumerate(check_list(owner, field, value)))


def check_integers(owner: str, field: str, value: object, *, minimum: int | None = None) -> tuple[int, ...]:
    """A list of integers, as a tuple."""
    items = check_list(owner, field, value)
    return tuple(check_integer(owner, f"{field}[{i}]", item, minimum=minimum) for i, item in enumerate(items))


def check_mapping(owner: str, field: str, value: object) -> None:
    """Refuse what is not a mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give a mapping of names to values."
        )


def check_instances(owner: str, field: str, value: object, kind: type[Value]) -> tuple[Value, ...]:
    """A list whose every item is a `kind`, as a tuple."""
    items = check_list(owner, field, value)
    for index, item in enumerate(items):
        check_instance(owner, f"{field}[{index}]", item, kind)
    return items


def check_instance(owner: str, field: str, value: object, kind: type[Value]) -> Value:
    """One object of class `kind`."""
    if not isinstance(value, kind):
        raise ValueError(f"{owner}: {field}={quoted(value)} is a {type(value).__name__}. Give a {kind.__name__}.")
    return value


def check_unique(owner: str, field: str, names: Iterable[str]) -> None:
    """Refuse the first name that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{owner}: {field} has {quoted(name)} twice. Rename one of them.")
        seen.add(name)
