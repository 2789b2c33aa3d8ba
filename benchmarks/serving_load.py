"""MLPerf's load generator before a scorer: its Server and Offline scenarios, driven from Python.

Queries arrive by LoadGen's own Poisson schedule (Server) or all at once (Offline); `lanes` threads take them from a
queue and score one at a time. LoadGen times them and judges the run. From MLPerf Inference's mlperf.conf, which
LoadGen holds, come dlrm-v2's limits: p99 of at most 60 ms, and the seeds. What differs from a submission: the shorter
duration, fewer samples in memory, random weights and rows, and that nobody reviewed it. These are no MLPerf results.
"""

from __future__ import annotations

import queue
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import CpuClock, usable_cores

MODEL = "dlrm-v2"  # whose limits LoadGen takes from mlperf.conf
TARGET_LATENCY_SECONDS = 0.060  # dlrm-v2.Server.target_latency of mlperf.conf
# Early stopping calls a p99 valid from 459 queries on, more where some are late; a slow rate takes longer than asked.
MIN_QUERIES = 662
BUILT_IN = 0  # conf_type of TestSettings.FromConfig
SUMMARY = "mlperf_log_summary.txt"
NANOSECONDS = 1e9

Score = Callable[[int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What LoadGen wrote about one run.

    Args:
        scenario: `Server` or `Offline`.
        target_qps: queries a second that LoadGen sent (Server) or expected (Offline).
        is_valid: LoadGen's own verdict: latency, duration and early stopping.
        queries_per_second: completed; Offline: samples a second.
        p50, p90, p99: seconds a query.
        notes: LoadGen's reasons where it is not valid.
        others_share: share of the machine's CPU time that other processes took, 0 to 1; a server is another process.
    """

    scenario: str
    target_qps: float
    is_valid: bool
    queries_per_second: float
    p50: float
    p90: float
    p99: float
    notes: tuple[str, ...] = ()
    others_share: float = 0.0

    @property
    def passes(self) -> bool:
        """Valid, and p99 within the limit."""
        return self.is_valid and (self.scenario != "Server" or self.p99 <= TARGET_LATENCY_SECONDS)


def parse_summary(text: str, scenario: str, target_qps: float) -> LoadResult:
    """Reads LoadGen's `mlperf_log_summary.txt`.

    Raises:
        ValueError: a line is missing.
    """

    def number(name: str) -> float:
        found = re.search(rf"^{re.escape(name)}\s*:\s*([-+.\deE]+)", text, re.MULTILINE)
        if not found:
            raise ValueError(f"{SUMMARY} has no line {name!r}; this release of LoadGen writes another summary.")
        return float(found[1])

    verdict = re.search(r"^Result is\s*:\s*(\w+)", text, re.MULTILINE)
    if not verdict:
        raise ValueError(f"{SUMMARY} has no line 'Result is'; this release of LoadGen writes another summary.")
    reasons = re.findall(r"^\s*\*\s*(.+)$", text, re.MULTILINE)
    rate = "Completed samples per second" if scenario == "Server" else "Samples per second"
    p50, p90, p99 = (number(f"{p}.00 percentile latency (ns)") / NANOSECONDS for p in (50, 90, 99))
    return LoadResult(
        scenario=scenario,
        target_qps=target_qps,
        is_valid=verdict[1] == "VALID",
        queries_per_second=number(rate),
        p50=p50,
        p90=p90,
        p99=p99,
        notes=tuple(reasons),
    )


class _Lanes:
    """Threads that score what LoadGen issues and report each query as it is done."""

    def __init__(self, score: Score, count: int) -> None:
        self._score = score
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def issue(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            self._queue.put((sample.id, sample.index))

    def close(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        import mlperf_loadgen as loadgen

        while (item := self._queue.get()) is not None:
            sample, index = item
            try:
                answer = np.ascontiguousarray(self._score(index), np.float32)
            except Exception as error:  # LoadGen waits for every query: answer it, and raise after the run
                self.failure, answer = error, np.zeros(1, np.float32)
            response = loadgen.QuerySampleResponse(sample, answer.ctypes.data, answer.nbytes)
            loadgen.QuerySamplesComplete([response])


def run_load(
    scenario: str, score: Score, num_samples: int, *, target_qps: float, seconds: float, lanes: int
) -> LoadResult:
    """One run of LoadGen.

    Args:
        scenario: `Server` or `Offline`.
        score: number of a sample, 0 to num_samples - 1 -> its probabilities; called by `lanes` threads at once.
        num_samples: different samples, all in memory.
        target_qps: queries a second to send; Offline: samples a second to expect, which sizes its one query.
        seconds: shortest duration.
        lanes: samples scored at once.

    Raises:
        ValueError: this release of LoadGen has another limit for dlrm-v2.
        Exception: whatever `score` raised.
    """
    import mlperf_loadgen as loadgen

    settings = loadgen.TestSettings()
    with tempfile.TemporaryDirectory() as name:
        # FromConfig of a user's file reads the built-in mlperf.conf in the first run of a process only
        settings.FromConfig("", MODEL, scenario, BUILT_IN)
        if settings.server_target_latency_ns != TARGET_LATENCY_SECONDS * NANOSECONDS and scenario == "Server":
            raise ValueError(
                f"LoadGen's limit is {settings.server_target_latency_ns} ns; p99 <= 60 ms is reported here"
            )
        settings.server_target_qps = settings.offline_expected_qps = target_qps
        settings.scenario = getattr(loadgen.TestScenario, scenario)
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = int(seconds * 1000)
        settings.max_duration_ms = 0
        settings.min_query_count = MIN_QUERIES if scenario == "Server" else 1
        settings.performance_sample_count_override = num_samples
        output = loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = name, False
        log = loadgen.LogSettings()
        log.log_output, log.enable_trace = output, False
        working = _Lanes(score, lanes)
        suite = loadgen.ConstructSUT(working.issue, lambda: None)
        library = loadgen.ConstructQSL(num_samples, num_samples, lambda samples: None, lambda samples: None)
        clock = CpuClock.now()
        try:
            loadgen.StartTestWithLogSettings(suite, library, settings, log)
        finally:
            others_share = CpuClock.now().others_share_since(clock, usable_cores())
            working.close()
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(suite)
        if working.failure is not None:
            raise working.failure
        found = parse_summary((Path(name) / SUMMARY).read_text(), scenario, target_qps)
        return replace(found, others_share=others_share)
