"""Rows of a request: how many there are, whether all inputs agree, cutting and joining along the batch dimension."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from savedmodels.wire.arrays import InputError
from savedmodels.wire.signatures import RANK_SIGNATURE, SignatureSpec, dtype_text
from tfdlrm.checks import quoted

Arrays = Mapping[str, np.ndarray]


def check_names(signature: SignatureSpec, names: Sequence[str]) -> None:
    """Refuses inputs that the signature does not have, and missing ones.

    Raises:
        InputError: names the nearest known input.
    """
    known = list(signature.inputs)
    for name in names:
        if name not in signature.inputs:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {quoted(near[0])}?" if near else ""
            raise InputError(
                f"input {quoted(name[:100])} is unknown to signature "
                f"{quoted(signature.name)}.{hint} It takes: {', '.join(known)}."
            )
    missing = [name for name in known if name not in names]
    if missing:
        listed = ", ".join(f"{name} ({signature.inputs[name].text})" for name in missing)
        raise InputError(f"signature {quoted(signature.name)}: missing inputs: {listed}.")


def check_arrays(signature: SignatureSpec, arrays: Arrays, max_rows: int, *, exact_shapes: bool = True) -> int:
    """Checks arrays against a signature: dtypes, shapes, equal numbers of rows, lengths of bags.

    Args:
        signature: what is expected.
        arrays: by input name; `check_names` has passed.
        max_rows: of the request.
        exact_shapes: see `wrong_shape`.

    Returns:
        Rows of the request.

    Raises:
        InputError: names the input, what was given and what is expected.
    """
    for name, array in arrays.items():
        spec = signature.inputs[name]
        if array.dtype != spec.dtype:
            raise InputError(f"input {quoted(name)}: {dtype_text(array.dtype)} was given; {spec.text} is expected.")
    if (problem := wrong_shape(signature, arrays, exact=exact_shapes)) is not None:
        raise InputError(problem)
    for values, lengths in signature.bags.items():
        _check_bags(values, arrays[values], lengths, arrays[lengths])
    rows = {name: len(array) for name, array in arrays.items() if array.ndim and name not in signature.bags}
    num_rows = max(rows.values(), default=0)
    if num_rows > max_rows:
        name = max(rows, key=lambda key: rows[key])
        raise InputError(f"input {quoted(name)} has {num_rows} rows; a request may have {max_rows}. Send it in parts.")
    allowed = {1, num_rows} if signature.name == RANK_SIGNATURE else {num_rows}
    if signature.is_batch_first or signature.name == RANK_SIGNATURE:
        for name, count in rows.items():
            if count not in allowed:
                most = max(rows, key=lambda key: rows[key])
                raise InputError(
                    f"input {quoted(name)} has {count} rows where {quoted(most)} has {num_rows}"
                    f"{'; 1 or as many' if len(allowed) > 1 else '; one for each row'} is expected."
                )
    return num_rows


def wrong_shape(signature: SignatureSpec, arrays: Arrays, *, exact: bool = True) -> str | None:
    """What is to be said of the first input whose shape is not its signature's; None where all are.

    Args:
        signature: what is expected.
        arrays: by input name.
        exact: False lets last dimensions of 1 be left out, `[3]` for `[?, 1]`: the graph is given what came.
    """
    for name, array in arrays.items():
        spec = signature.inputs[name]
        if spec.shape is None:
            continue
        given, left_out = spec.shape[: array.ndim], spec.shape[array.ndim :]
        has_rank = array.ndim <= len(spec.shape) and (not left_out or (not exact and set(left_out) == {1}))
        if not has_rank or any(size not in (None, had) for size, had in zip(given, array.shape, strict=True)):
            hint = " Its bags are given one after another, beside their lengths." if name in signature.bags else ""
            return f"input {quoted(name)}: shape {list(array.shape)} was given; {spec.text} is expected.{hint}"
    return None


def _check_bags(values_name: str, values: np.ndarray, lengths_name: str, lengths: np.ndarray) -> None:
    if lengths.ndim != 1 or values.ndim < 1 or lengths.dtype.kind not in "iu":
        return
    if lengths.size and lengths.min() < 0:
        row = int(np.flatnonzero(lengths < 0)[0])
        raise InputError(f"input {quoted(lengths_name)}, row {row}: {lengths[row]} is no length.")
    # in Python's integers: a sum of int64 could wrap around to the right number
    total = (
        int(lengths.sum()) if not lengths.size or int(lengths.max()) <= 2**62 // lengths.size else sum(lengths.tolist())
    )
    if total != len(values):
        raise InputError(
            f"input {quoted(lengths_name)} adds up to {total}, but {quoted(values_name)} holds {len(values)} values."
        )


def cut(signature: SignatureSpec, arrays: Arrays, max_rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Parts of at most `max_rows` rows, in order; bags are cut between rows. An empty request is one empty part.

    Raises:
        InputError: the signature is not batch first, and there are more rows.
    """
    num_rows = max((len(a) for name, a in arrays.items() if a.ndim and name not in signature.bags), default=0)
    if num_rows <= max_rows:
        yield dict(arrays)
        return
    if not signature.is_batch_first:
        raise InputError(
            f"signature {quoted(signature.name)} cannot be asked in parts: {num_rows} rows where "
            f"{max_rows} are allowed."
        )
    offsets = {name: np.concatenate([[0], np.cumsum(arrays[name])]) for name in set(signature.bags.values())}
    for start in range(0, num_rows, max_rows):
        stop = min(start + max_rows, num_rows)
        part = {}
        for name, array in arrays.items():
            if name in signature.bags:
                ends = offsets[signature.bags[name]]
                part[name] = array[ends[start] : ends[stop]]
            else:
                part[name] = array[start:stop]
        yield part


def join(parts: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Arrays of several parts, one part after another; every part has the same names.

    Example:
        >>> join([{"id": np.array([1])}, {"id": np.array([2, 3])}])["id"]
        array([1, 2, 3])
    """
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
