"""Times calls one by one, and says so in one line: standard library and NumPy, for every side."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from machine import CpuClock, usable_cores
from measurement import RESULT_PREFIX

WARMUP_SECONDS = 1.0
WARMUP_CALLS = 20
MINIMUM_CALLS = 50
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class CallTimes:
    """Seconds of single calls, one after another from one thread.

    Args:
        rows: a call scores.
        calls: timed.
        p50, p90, p99: seconds.
        mean: seconds.
        others_share: share of the machine's CPU time that other processes took meanwhile, 0 to 1.
    """

    rows: int
    calls: int
    p50: float
    p90: float
    p99: float
    mean: float
    others_share: float

    @property
    def rows_per_second(self) -> float:
        """At the median call."""
        return self.rows / self.p50


def percentiles(seconds: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """p50, p90 and p99, each a call that happened: the smallest that so many percent of the calls do not exceed.

    Raises:
        ValueError: no calls.
    """
    if not len(seconds):
        raise ValueError("no call was timed, so there are no percentiles.")
    p50, p90, p99 = np.percentile(seconds, PERCENTILES, method="inverted_cdf").tolist()
    return p50, p90, p99


def time_calls(calls: Sequence[Callable[[], Any]], *, rows: int, seconds: float) -> CallTimes:
    """Runs the calls in turn for `seconds`, after a warm-up.

    Args:
        calls: functions that return once the answer is there.
        rows: each of them scores.
        seconds: to time for; at least `MINIMUM_CALLS` calls are timed.
    """
    count, end = 0, time.perf_counter() + WARMUP_SECONDS
    while count < max(WARMUP_CALLS, len(calls)) or time.perf_counter() < end:
        calls[count % len(calls)]()
        count += 1
    took: list[float] = []
    clock, end = CpuClock.now(), time.perf_counter() + seconds
    start = time.perf_counter()
    while start < end or len(took) < MINIMUM_CALLS:
        calls[len(took) % len(calls)]()
        now = time.perf_counter()
        took.append(now - start)
        start = now
    others_share = CpuClock.now().others_share_since(clock, usable_cores())
    p50, p90, p99 = percentiles(took)
    return CallTimes(
        rows=rows, calls=len(took), p50=p50, p90=p90, p99=p99, mean=statistics.fmean(took), others_share=others_share
    )


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """What one process of one side measured.

    Args:
        side: its name.
        times: by rows a call, as text (the keys of JSON).
        largest_difference: between its probabilities and the live model's.
        versions: of the packages that did the work.
        load: what the load generator found, where it was asked for.
    """

    side: str
    times: Mapping[str, CallTimes]
    largest_difference: float
    versions: Mapping[str, str]
    load: Mapping[str, Any] | None = None

    def to_line(self) -> str:
        """The line a side prints; `parse_call_result` reads it back."""
        return RESULT_PREFIX + json.dumps(asdict(self))


def parse_call_result(output: str) -> CallResult:
    """The result in what a side printed.

    Raises:
        ValueError: no result line.
    """
    lines = [line for line in output.splitlines() if line.startswith(RESULT_PREFIX)]
    if not lines:
        raise ValueError("the side printed no RESULT line")
    fields = json.loads(lines[-1][len(RESULT_PREFIX) :])
    fields["times"] = {rows: CallTimes(**times) for rows, times in fields["times"].items()}
    return CallResult(**fields)


def summarize_rounds(rounds: Sequence[CallTimes]) -> CallTimes:
    """Medians over the rounds of one side; calls add up, and the largest share of others counts."""
    return CallTimes(
        rows=rounds[0].rows,
        calls=sum(each.calls for each in rounds),
        others_share=max(each.others_share for each in rounds),
        **{name: statistics.median(getattr(each, name) for each in rounds) for name in ("p50", "p90", "p99", "mean")},
    )
