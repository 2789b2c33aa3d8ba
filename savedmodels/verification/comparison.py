"""Whether answers of an export are those that the live model gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfdlrm.checks import quoted

# The sigmoid of a logit that is 1e-5 off moves by a quarter of that at most, and logits of trained models are well
# within 1e-5; a wrong row, a lost weight or ids cut to float32 show as 1e-3 and more.
PROBABILITY_ATOL = 1e-6
# A logit is a sum of some hundred products in float32 (2**-24 = 6e-8 relative each), and an exported graph may be
# fused or threaded otherwise than the live one: the order of the sums differs, so that bits differ and no more.
SUM_ATOL = 1e-5
SUM_RTOL = 1e-5
_TOP = ("top_index", "top_probability")
# Outputs whose tolerance follows from another's.
_SAME_TOLERANCE = {"top_probability": "probability"}


class Difference(NamedTuple):
    """The greatest difference of an output, measured by what is allowed there.

    Attributes:
        apart: absolute difference.
        allowed: bound for it.
    """

    apart: float
    allowed: float

    @property
    def share(self) -> float:
        """Of what is allowed; above 1 is too much."""
        return self.apart / self.allowed if self.allowed else float(self.apart > 0)


class Comparison(NamedTuple):
    """Problems, a line each, and the greatest differences by output (floating-point outputs only)."""

    problems: list[str]
    differences: dict[str, Difference]


def compare(
    recorded: Mapping[str, np.ndarray],
    answered: Mapping[str, np.ndarray],
    tolerance: Mapping[str, float],
    k: int | None = None,
) -> Comparison:
    """Compares the outputs of one request.

    Args:
        recorded: name -> the live model's output.
        answered: name -> the export's.
        tolerance: name -> absolute difference allowed beside that of rounding, as the manifest has it.
        k: number of the best candidates that the request asked for, where it did.

    Returns:
        Floating-point outputs are compared with a bound: `PROBABILITY_ATOL` for probabilities, `SUM_ATOL + SUM_RTOL *
        |recorded|` for others, and the output's tolerance on top. All else must be equal, but for `top_index`, where
        candidates within the bound of each other may change places. `top_index` and `top_probability` are compared
        with the answer's own `probability` as well, from which they follow, and need not be recorded.

    Example:
        >>> compare({"probability": np.float32([0.5])}, {"probability": np.float32([0.7])}, {}).problems
        ["output 'probability' is 0.2 off at [0]: 0.7, recorded 0.5; 1e-06 is allowed"]
    """
    problems, differences = [], {}
    for name in sorted(recorded.keys() | answered.keys()):
        if name not in answered:
            problems.append(f"output {quoted(name)} is missing")
            continue
        if name not in recorded:
            if name in _TOP and "probability" in recorded:
                continue
            problems.append(f"output {quoted(name)} was not recorded")
            continue
        expected, given = recorded[name], answered[name]
        if expected.dtype != given.dtype or expected.shape != given.shape:
            problems.append(
                f"output {quoted(name)} is {given.dtype} {list(given.shape)}, recorded {expected.dtype} "
                f"{list(expected.shape)}"
            )
        elif expected.dtype.kind == "f":
            problem, difference = _compare_floats(name, expected, given, _tolerance(name, tolerance))
            problems += problem
            differences[name] = difference
        elif not np.array_equal(expected, given) and not (
            name == "top_index" and _is_another_order(recorded, answered, tolerance)
        ):
            where = np.argwhere(expected != given)[0]
            at = tuple(where)
            problems.append(
                f"output {quoted(name)} is {quoted(given[at])} at {where.tolist()}, recorded {quoted(expected[at])}: "
                f"{np.count_nonzero(expected != given)} of {expected.size} differ"
            )
    if {"probability", *_TOP} <= answered.keys():
        problems += _ranking_problems(answered, k)
    return Comparison(problems, differences)


def _tolerance(name: str, tolerance: Mapping[str, float]) -> float:
    return tolerance.get(name, tolerance.get(_SAME_TOLERANCE.get(name, ""), 0.0))


def _bound(name: str, expected: np.ndarray, tolerance: float) -> np.ndarray:
    is_probability = name in ("probability", "top_probability")
    rounding = PROBABILITY_ATOL if is_probability else SUM_ATOL + SUM_RTOL * np.abs(expected.astype(np.float64))
    return np.broadcast_to(rounding + tolerance, expected.shape)


def _compare_floats(
    name: str, expected: np.ndarray, given: np.ndarray, tolerance: float
) -> tuple[list[str], Difference]:
    if not expected.size:
        return [], Difference(0.0, float(_bound(name, np.zeros(1), tolerance)[0]))
    for array, whose in ((expected, "the recorded one"), (given, "the answer")):
        if not np.isfinite(array).all():
            at = np.argwhere(~np.isfinite(array))[0].tolist()
            return [f"output {quoted(name)}: {whose} is {array[tuple(at)]} at {at}"], Difference(np.inf, 0.0)
    apart = np.abs(expected.astype(np.float64) - given.astype(np.float64))
    bound = _bound(name, expected, tolerance)
    worst = np.unravel_index(np.argmax(apart / bound), apart.shape)
    difference = Difference(float(apart[worst]), float(bound[worst]))
    if difference.share <= 1:
        return [], difference
    at = [int(i) for i in worst]
    return [
        f"output {quoted(name)} is {difference.apart:.3g} off at {at}: {given[worst]:.6g}, "
        f"recorded {expected[worst]:.6g}; "
        f"{difference.allowed:.3g} is allowed"
    ], difference


def _is_another_order(
    recorded: Mapping[str, np.ndarray], answered: Mapping[str, np.ndarray], tolerance: Mapping[str, float]
) -> bool:
    """Whether the top candidates differ only where the live model puts them within the bound of each other."""
    if not {"probability", "top_probability"} <= recorded.keys():
        return False
    index, top, probability = answered["top_index"], recorded["top_probability"], recorded["probability"]
    was = recorded["top_index"]
    is_valid = (
        probability.ndim == 2 and top.shape == index.shape == was.shape and len(set(index.tolist())) == len(index)
    )
    if not is_valid or not len(index) or min(index.min(), was.min()) < 0:
        return False
    if max(index.max(), was.max()) >= len(probability):
        return False
    # either side may be off by the bound
    bound = 2 * (PROBABILITY_ATOL + _tolerance("probability", tolerance))
    # of several tasks, those by which the live model ranked
    tasks = [t for t in range(probability.shape[1]) if np.abs(probability[was, t] - top).max() <= PROBABILITY_ATOL]
    return any(np.abs(probability[index, t] - top).max() <= bound for t in tasks)


def _ranking_problems(answered: Mapping[str, np.ndarray], k: int | None) -> list[str]:
    """Whether the top candidates are the best by the answer's own probabilities of a task, the best first."""
    probability, index, top = (answered[name] for name in ("probability", *_TOP))
    if probability.ndim != 2 or index.ndim != 1 or index.shape != top.shape or (k is not None and len(index) != k):
        return [
            f"outputs 'top_index' {list(index.shape)} and 'top_probability' {list(top.shape)} do not have k={k} "
            f"elements each, beside 'probability' {list(probability.shape)}"
        ]
    wrong = [int(i) for i in index if not 0 <= i < len(probability)]
    if wrong or len(set(index.tolist())) != len(index):
        return [f"output 'top_index' {index.tolist()} is not of {len(probability)} candidates, each once"]
    if not len(index):
        return []
    apart = np.abs(probability[index] - top[:, np.newaxis]).max(axis=0)
    task = int(np.argmin(apart))
    if not apart[task] <= PROBABILITY_ATOL:
        return ["output 'top_probability' is not 'probability' at 'top_index'"]
    if (np.diff(top) > 0).any():
        return [f"output 'top_probability' {top.tolist()} is not in order, the best first"]
    others = np.delete(probability[:, task], index)
    if others.size and others.max() > top[-1] + PROBABILITY_ATOL:
        return [f"output 'top_index' leaves out a candidate of {others.max():.6g}, better than its last, {top[-1]:.6g}"]
    return []
