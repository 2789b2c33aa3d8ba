"""Timing in chunks, and the result line that a side prints and the harness reads."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine import CpuClock
from measurement import (
    CHUNK_SECONDS,
    MINIMUM_CHUNKS,
    RESULT_PREFIX,
    WARMUP_STEPS,
    ChunkTimer,
    SideResult,
    measure,
    parse_result,
)
from workload import Workload


def result(**fields: object) -> SideResult:
    values: dict = {
        "side": "fbgemm",
        "workload": {"batch_size": 2048, "max_rows": None},
        "step_seconds": (0.3, 0.1, 0.2),
        "num_steps": 12,
        "loss": 0.5,
        "peak_bytes": 10,
        "versions": {"torch": "2.13.0"},
    }
    return SideResult(**{**values, **fields})


class FakeClock:
    """Moves on by what it is told at every reading."""

    def __init__(self, seconds_a_reading: float) -> None:
        self.seconds_a_reading = seconds_a_reading
        self.time = 100.0

    def __call__(self) -> float:
        self.time += self.seconds_a_reading
        return self.time


@given(
    seconds=st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20),
    loss=st.floats(allow_nan=False, allow_infinity=False),
    share=st.floats(0, 1),
)
def test_a_printed_result_reads_back_as_itself(seconds: list[float], loss: float, share: float) -> None:
    original = result(step_seconds=tuple(seconds), loss=loss, others_share=share)
    assert parse_result("warning: noise\n" + original.to_line() + "\nbye\n") == original


def test_median_and_best() -> None:
    assert result().median_seconds == 0.2
    assert result().best_seconds == 0.1


def test_the_last_of_several_results_counts() -> None:
    output = result(loss=1.0).to_line() + "\n" + result(loss=2.0).to_line()
    assert parse_result(output).loss == 2.0


def test_output_without_a_result_is_an_error() -> None:
    with pytest.raises(ValueError, match="no RESULT line"):
        parse_result("epoch 1\nloss 0.5\n")


@pytest.mark.parametrize("seconds", [[], [0.1, 0.0], [-1.0]])
def test_step_times_that_cannot_be_are_refused(seconds: list[float]) -> None:
    line = RESULT_PREFIX + json.dumps({**asdict(result()), "step_seconds": seconds})
    with pytest.raises(ValueError, match="step_seconds must be positive"):
        parse_result(line)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        parse_result(result(loss=math.nan).to_line())


def test_chunks_hold_the_mean_step_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lap_seconds = CHUNK_SECONDS / 4  # exact in binary: four laps fill a chunk
    monkeypatch.setattr(ChunkTimer, "now", FakeClock(lap_seconds))
    timer = ChunkTimer(steps_per_lap=5)
    timer.start()
    completed = [timer.lap() for _ in range(9)]
    assert completed == [False, False, False, True, False, False, False, True, False]
    assert timer.step_seconds == [lap_seconds / 5] * 2
    assert timer.num_steps == 40


def test_enough_chunks_are_timed_even_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChunkTimer, "now", FakeClock(10.0))
    timer = ChunkTimer()
    timer.start()
    laps = 0
    while not timer.is_done(end=0.0):
        timer.lap()
        laps += 1
    assert laps == MINIMUM_CHUNKS


def test_disturbance_is_that_of_the_timed_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy start-up must not count: it is several times longer than the timed window."""
    clocks = iter([CpuClock(machine_seconds=50.0, own_seconds=10.0, wall_seconds=30.0)])
    later = CpuClock(machine_seconds=52.0, own_seconds=11.0, wall_seconds=32.0)
    monkeypatch.setattr(CpuClock, "now", classmethod(lambda cls: next(clocks, later)))
    monkeypatch.setattr("measurement.usable_cores", lambda: 2)
    monkeypatch.setattr(ChunkTimer, "now", FakeClock(CHUNK_SECONDS))
    timer = ChunkTimer()
    timer.start()
    timer.lap()
    timed = timer.result("tfrs", Workload(), loss=0.5, versions={})
    assert timed.others_share == (2.0 - 1.0) / (2.0 * 2)


def test_what_comes_before_resume_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(CHUNK_SECONDS)
    monkeypatch.setattr(ChunkTimer, "now", clock)
    timer = ChunkTimer()
    timer.start()
    assert timer.lap()
    clock.time += 1000.0  # the end of an epoch
    timer.resume()
    assert timer.lap()
    assert timer.step_seconds == [CHUNK_SECONDS] * 2
    assert timer.num_steps == 2


def test_a_lap_may_be_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChunkTimer, "now", FakeClock(CHUNK_SECONDS))
    timer = ChunkTimer(steps_per_lap=0.25)
    timer.start()
    timer.lap()
    assert timer.step_seconds == [4 * CHUNK_SECONDS]
    assert timer.result("floor-rows-numpy", Workload(), loss=0.5, versions={}).num_steps == 0


def test_a_timer_that_timed_nothing_has_no_result() -> None:
    with pytest.raises(ValueError, match="no chunk was timed"):
        ChunkTimer().result("tfrs", Workload(), loss=0.5, versions={})


def test_measure_cycles_through_the_batches_and_prints_the_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ChunkTimer, "now", FakeClock(CHUNK_SECONDS))
    seen: list[int] = []

    def step(index: int) -> float:
        seen.append(index)
        return 0.25

    workload = Workload(batch_size=4, num_batches=3)
    measured = measure("torch-sgd", workload, step, seconds=1.0, versions={"torch": "1"})
    assert seen[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert measured.loss == 0.25
    assert measured.workload["batch_size"] == 4
    assert parse_result(capsys.readouterr().out) == measured


def test_a_call_of_several_steps_is_divided_by_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ChunkTimer, "now", FakeClock(CHUNK_SECONDS))
    calls: list[int] = []

    def step(index: int) -> float:
        calls.append(index)
        return 0.25

    workload = Workload(batch_size=4)
    measured = measure("tfdlrm-sgd", workload, step, seconds=1.0, versions={}, steps_per_call=8)
    assert measured.num_steps == 8 * (len(calls) - WARMUP_STEPS)
    assert max(measured.step_seconds) < CHUNK_SECONDS
