"""How a side is timed, and the one line in which it says the result.

Standard library only: it runs in the peers' environments too. A step is timed in chunks of at least a
quarter of a second, because a single small-batch step is within the noise of the clock and the scheduler.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from machine import CpuClock, usable_cores
from workload import Workload

RESULT_PREFIX = "RESULT "
CHUNK_SECONDS = 0.25
WARMUP_STEPS = 4
WARMUP_SECONDS = 3.0  # a side whose step takes seconds is warm after fewer steps
MINIMUM_CHUNKS = 3


@dataclass(frozen=True, kw_only=True)
class SideResult:
    """What one run of one side measured.

    Args:
        side: Name in `sides.SIDES`.
        workload: `Workload.to_dict()`.
        step_seconds: Mean seconds a step, one entry a chunk.
        num_steps: Steps timed, warm-up left out.
        loss: Of the last step; a side that computes nonsense fast must be seen.
        peak_bytes: Largest resident size of the side's process.
        versions: Of the packages that did the work.
        others_share: Share of the machine's CPU time that other processes took while steps were timed, 0 to 1;
            start-up and warm-up are left out, which are longer and say nothing about the steps. A side that
            spins while it waits (OpenMP) suffers far more from a busy neighbour than one that sleeps.
    """

    side: str
    workload: Mapping[str, int | None]
    step_seconds: tuple[float, ...]
    num_steps: int
    loss: float
    peak_bytes: int
    versions: Mapping[str, str] = field(default_factory=dict)
    others_share: float = 0.0

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.step_seconds)

    @property
    def best_seconds(self) -> float:
        return min(self.step_seconds)

    def to_line(self) -> str:
        """The line a side prints; `parse_result` reads it back."""
        return RESULT_PREFIX + json.dumps(asdict(self))


def parse_result(output: str) -> SideResult:
    """Finds the result in what a side printed (the last one, should there be several).

    Raises:
        ValueError: No result line, or one that cannot be a measurement.
    """
    lines = [line for line in output.splitlines() if line.startswith(RESULT_PREFIX)]
    if not lines:
        raise ValueError("the side printed no RESULT line")
    fields = json.loads(lines[-1][len(RESULT_PREFIX) :])
    fields["step_seconds"] = tuple(fields["step_seconds"])
    result = SideResult(**fields)
    if not result.step_seconds or min(result.step_seconds) <= 0:
        raise ValueError(f"side {result.side!r}: step_seconds must be positive. Received: {result.step_seconds}")
    if not math.isfinite(result.loss):
        raise ValueError(f"side {result.side!r}: loss is {result.loss}; a run that diverged measures nothing")
    return result


def add_timing_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SECS", 6)), help="to time a side for")


class ChunkTimer:
    """Turns the ends of steps into mean step times of chunks of at least `CHUNK_SECONDS`.

    Call `start()`, then `lap()` after each call that ended; the clock runs from one chunk into the next, so
    that work between two calls counts as well.

    Args:
        steps_per_lap: Training steps that one lap stands for; a fraction where a lap is part of a step's work.
    """

    def __init__(self, steps_per_lap: float = 1) -> None:
        self.steps_per_lap = steps_per_lap
        self.step_seconds: list[float] = []
        self.num_steps: float = 0
        self._laps = 0
        self._chunk_start = math.nan
        self._first_clock: CpuClock | None = None
        self._last_clock: CpuClock | None = None

    @staticmethod
    def now() -> float:
        """The clock that `is_done` compares with, in seconds."""
        return time.perf_counter()

    def start(self) -> None:
        """Begins the first chunk."""
        self._first_clock = CpuClock.now()
        self._chunk_start = self.now()

    def resume(self) -> None:
        """Begins a new chunk; what came since the last completed one is not counted."""
        self._laps = 0
        self._chunk_start = self.now()

    def lap(self) -> bool:
        """Counts a lap; True where it completed a chunk."""
        self._laps += 1
        now = self.now()
        if now - self._chunk_start < CHUNK_SECONDS:
            return False
        steps = self._laps * self.steps_per_lap
        self.step_seconds.append((now - self._chunk_start) / steps)
        self.num_steps += steps
        self._laps = 0
        self._chunk_start = now
        self._last_clock = CpuClock.now()
        return True

    def is_done(self, end: float) -> bool:
        """Whether the clock has passed `end` (of `now`) and enough chunks were timed."""
        return self.now() >= end and len(self.step_seconds) >= MINIMUM_CHUNKS

    @property
    def others_share(self) -> float:
        """Share of the machine's CPU time that other processes took during the completed chunks."""
        if self._first_clock is None or self._last_clock is None:
            return 0.0
        return self._last_clock.others_share_since(self._first_clock, usable_cores())

    def result(self, side: str, workload: Workload, *, loss: float, versions: Mapping[str, str]) -> SideResult:
        """What was timed, as a result of `side`.

        Raises:
            ValueError: Not one chunk was completed.
        """
        if not self.step_seconds:
            raise ValueError(f"side {side!r}: no chunk was timed. Call start(), and lap() after each step.")
        return SideResult(
            side=side,
            workload=workload.to_dict(),
            step_seconds=tuple(self.step_seconds),
            num_steps=round(self.num_steps),
            loss=loss,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux counts in KiB
            versions=dict(versions),
            others_share=self.others_share,
        )


def measure(
    side: str,
    workload: Workload,
    step: Callable[[int], Any],
    *,
    seconds: float,
    versions: Mapping[str, str],
    steps_per_call: float = 1,
) -> SideResult:
    """Runs `step(i)`, i cycling through the workload's batches, for `seconds` and prints the result line.

    Args:
        side: Name to report under.
        workload: What is being run.
        step: Does training step i and returns its loss, as anything `float` accepts; or `steps_per_call`
            steps, whose batches it keeps count of itself.
        seconds: Time to spend after warm-up; at least `MINIMUM_CHUNKS` chunks are timed whatever it says.
        versions: Package versions to report.
        steps_per_call: Training steps that one call of `step` does.

    Returns:
        The result, also printed.
    """
    indices = itertools.cycle(range(workload.num_batches))
    warmup_start = time.perf_counter()
    for count in range(WARMUP_STEPS):
        loss = float(step(next(indices)))
        if count and time.perf_counter() - warmup_start > WARMUP_SECONDS:
            break
    timer = ChunkTimer(steps_per_lap=steps_per_call)
    timer.start()
    end = timer.now() + seconds
    while not timer.is_done(end):
        last = step(next(indices))
        if timer.lap():
            loss = float(last)  # waits for a side that works asynchronously: its time counts in the next chunk
    result = timer.result(side, workload, loss=loss, versions=versions)
    print(result.to_line(), flush=True)
    return result
