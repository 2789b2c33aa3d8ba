"""Values of a request as arrays of exactly the dtype that a signature asks for, or an error that says what is wrong."""

from __future__ import annotations

import base64
import binascii
from itertools import chain
from typing import Any

import numpy as np

from savedmodels.wire.signatures import TensorSpec, dtype_text, is_float
from tfdlrm.checks import quoted

MAX_RANK = 8
MAX_EXACT_FLOAT = 2**53  # larger whole numbers may have lost digits on their way through a float64
BASE64_KEY = "b64"
SHOWN_CHARACTERS = 40


class InputError(ValueError):
    """An input that does not fit its signature; the message names it."""


def to_array(spec: TensorSpec, value: Any) -> np.ndarray:
    """A value as an array of the dtype of `spec`; the shape is the value's own.

    Lists may be nested; all lists of a level have one length. Whole floats are taken as integers, integers as floats.
    A string is text (UTF-8), bytes, or `{"b64": ...}`, base64 of bytes. NaN passes.

    Args:
        spec: what is expected.
        value: a number, a string, nested lists, or a NumPy array.

    Raises:
        InputError: another kind of value, a number that the dtype cannot hold, lists of different lengths.

    Example:
        >>> to_array(TensorSpec(name="user", dtype=np.dtype("int64"), shape=(None,)), [3, 4.0])
        array([3, 4])
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return _from_numpy(spec, np.asarray(value))
    leaves, shape = _flatten(spec, value)
    if not leaves:
        return np.empty(_empty_shape(spec, shape), spec.dtype)
    return _convert(spec, leaves, shape).reshape(shape)


def _from_numpy(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    if array.dtype == spec.dtype and array.dtype.kind != "O":
        return array
    if spec.dtype.kind == "O" and array.dtype.kind in "SUO":
        return _convert(spec, array.ravel().tolist(), array.shape).reshape(array.shape)
    if spec.dtype.kind in "iu" and array.dtype.kind in "iu":
        return _integers_that_fit(spec, array)
    if is_float(spec.dtype) and (array.dtype.kind in "iu" or is_float(array.dtype)):
        return _floats_that_fit(spec, array)
    if (spec.dtype.kind in "iu" and is_float(array.dtype)) or array.dtype.kind == "O":
        return _convert(spec, array.ravel().tolist(), array.shape).reshape(array.shape)
    raise InputError(f"input {quoted(spec.name)}: {dtype_text(array.dtype)} was given; {spec.text} is expected.")


def _flatten(spec: TensorSpec, value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The values below nested lists, and the lists' lengths level by level."""
    level: list[Any] = [value]
    shape: list[int] = []
    while level and isinstance(level[0], (list, tuple)):
        if len(shape) == MAX_RANK:
            raise InputError(
                f"input {quoted(spec.name)}: lists are nested more than {MAX_RANK} deep; {spec.text} is expected."
            )
        size = len(level[0])
        for position, entry in enumerate(level):
            if not isinstance(entry, (list, tuple)) or len(entry) != size:
                found = f"a list of {len(entry)}" if isinstance(entry, (list, tuple)) else _shown(entry)
                hint = "" if spec.shape is not None and len(spec.shape) > 1 else _bag_hint(spec)
                raise InputError(
                    f"input {quoted(spec.name)}: entry {position} is {found} where entry 0 is a list of {size}; "
                    f"{spec.text} is expected.{hint}"
                )
        shape.append(size)
        level = list(chain.from_iterable(level))
    for position, entry in enumerate(level):
        if isinstance(entry, (list, tuple)):
            raise InputError(
                f"input {quoted(spec.name)}: entry {position} is a list where entry 0 is {_shown(level[0])}; "
                f"{spec.text} is expected."
            )
    return level, tuple(shape)


def _bag_hint(spec: TensorSpec) -> str:
    return " Bags of different lengths are given one after another, beside their lengths." if spec.shape else ""


def _empty_shape(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`[]` says nothing of the dimensions after the first that is 0; the signature does."""
    if spec.shape is None or len(shape) >= len(spec.shape):
        return shape
    return shape + tuple(size or 0 for size in spec.shape[len(shape) :])


def _convert(spec: TensorSpec, leaves: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    kind = spec.dtype.kind
    kinds = set(map(type, leaves))
    if kind == "O":
        array = np.empty(len(leaves), object)
        if kinds == {bytes}:
            array[:] = leaves
        else:
            array[:] = [_to_bytes(spec, position, leaf, shape) for position, leaf in enumerate(leaves)]
        return array
    if kind == "b":
        _require(spec, leaves, shape, {bool})
        return np.array(leaves, spec.dtype)
    if kind in "iu":
        if kinds != {int}:
            _require(spec, leaves, shape, {int, float})
            leaves = [_whole(spec, position, leaf, shape) for position, leaf in enumerate(leaves)]
        try:
            return np.array(leaves, spec.dtype)
        except OverflowError:
            limits = np.iinfo(spec.dtype)
            position = next(i for i, leaf in enumerate(leaves) if not limits.min <= leaf <= limits.max)
            raise _refused(spec, position, leaves[position], shape) from None
    _require(spec, leaves, shape, {int, float})
    try:
        return _floats_that_fit(spec, np.array(leaves, np.float64), shape)
    except OverflowError:
        position = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, int) and abs(leaf) >= 2**1023)
        raise _refused(spec, position, leaves[position], shape) from None


def _require(spec: TensorSpec, leaves: list[Any], shape: tuple[int, ...], allowed: set[type]) -> None:
    if not set(map(type, leaves)) <= allowed:
        position = next(i for i, leaf in enumerate(leaves) if type(leaf) not in allowed)
        raise _refused(spec, position, leaves[position], shape)


def _whole(spec: TensorSpec, position: int, leaf: float, shape: tuple[int, ...]) -> int:
    if isinstance(leaf, float) and not (leaf.is_integer() and abs(leaf) <= MAX_EXACT_FLOAT):
        raise _refused(spec, position, leaf, shape)
    return int(leaf)


def _integers_that_fit(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    limits = np.iinfo(spec.dtype)
    if array.size and not (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
        flat = array.ravel()
        position = next(i for i, value in enumerate(flat) if not limits.min <= int(value) <= limits.max)
        raise _refused(spec, position, int(flat[position]), array.shape)
    return array.astype(spec.dtype)


def _floats_that_fit(spec: TensorSpec, array: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(spec.dtype)
    grown = np.isinf(cast) & np.isfinite(array)  # finite before, beyond the dtype now
    if grown.any():
        position = int(np.flatnonzero(grown.ravel())[0])
        raise _refused(spec, position, array.ravel()[position].item(), array.shape if shape is None else shape)
    return cast


def _to_bytes(spec: TensorSpec, position: int, leaf: Any, shape: tuple[int, ...]) -> bytes:
    if isinstance(leaf, bytes):
        return leaf
    if isinstance(leaf, str):
        try:
            return leaf.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"input {quoted(spec.name)}, {_place(position, shape)}: text that is not valid Unicode. "
                f'Give bytes as {{"{BASE64_KEY}": ...}}.'
            ) from None
    if isinstance(leaf, dict) and set(leaf) == {BASE64_KEY} and isinstance(leaf[BASE64_KEY], str):
        try:
            return base64.b64decode(leaf[BASE64_KEY], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"input {quoted(spec.name)}, {_place(position, shape)}: not base64: {error}.") from None
    raise _refused(spec, position, leaf, shape)


def _refused(spec: TensorSpec, position: int, leaf: Any, shape: tuple[int, ...]) -> InputError:
    return InputError(f"input {quoted(spec.name)}, {_place(position, shape)}: {_shown(leaf)}; {spec.text} is expected.")


def _place(position: int, shape: tuple[int, ...]) -> str:
    if not shape:
        return "a single value"
    return f"row {int(np.unravel_index(position, shape)[0])}"


def _shown(leaf: Any) -> str:
    if leaf is None:
        return "null"
    text = repr(leaf) if not isinstance(leaf, int) or abs(leaf) < 10**30 else "a number of more than 30 digits"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
