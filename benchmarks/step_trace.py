"""Runs a training step under TensorFlow's profiler: which ops ran, when, and what they allocated.

The profiler writes an XSpace protobuf; TensorBoard's profile plugin is the usual reader. This one needs
TensorFlow only. Allocations below 256 KiB are not in the trace (oneDNN's CPU allocator serves them from a
pool without an event), which is why totals are called "large"; there are none at all where TensorFlow runs without
oneDNN, as it does on CPUs without AVX-512 (TF_ENABLE_ONEDNN_OPTS=1 turns it on). Nothing here depends on Keras or on
tfdlrm.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICOSECONDS = 1e-12
# In XSpace these stats of a MemoryAllocation event hold what TensorFlow's allocators report.
ALLOCATION_EVENT = "MemoryAllocation"
# Functions that only run other ops: their event covers the dispatch of what is counted on its own.
CALL_OPS = frozenset(
    {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "While", "StatelessWhile", "Case"}
)


@dataclass(frozen=True, kw_only=True)
class OpEvent:
    """One run of one op: `start`, `seconds` on the trace's clock; `self_seconds` without ops nested in it."""

    name: str
    op_type: str
    thread: int
    start: float
    seconds: float
    self_seconds: float


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """One large allocation: by the node `op_name`, of a tensor of `shape` (as TensorFlow prints it)."""

    op_name: str
    num_bytes: int
    shape: str


@dataclass(frozen=True, kw_only=True)
class StepTrace:
    """What was seen in `num_steps` traced steps; `wall_seconds` is their duration, tracing included."""

    num_steps: int
    wall_seconds: float
    ops: tuple[OpEvent, ...]
    allocations: tuple[Allocation, ...]

    @property
    def busy_seconds(self) -> float:
        """Time in which at least one op was running."""
        return covered_seconds((op.start, op.start + op.seconds) for op in self.ops)


def covered_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of `(start, end)` intervals."""
    covered = 0.0
    reached = float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered


def trace_steps(step: Callable[[int], Any], *, num_steps: int = 10, warmup_steps: int = 3) -> StepTrace:
    """Traces `num_steps` calls of `step(i)` after `warmup_steps` untraced ones.

    Args:
        step: Runs training step i to its end.
        num_steps: Steps to trace; more smooth the noise and lengthen the trace.
        warmup_steps: Steps before, so that tracing of graphs and first allocations stay out.

    Raises:
        RuntimeError: The profiler wrote no trace, or one without ops.
    """
    import tensorflow as tf

    for index in range(warmup_steps):
        step(index)
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with tempfile.TemporaryDirectory() as directory:
        tf.profiler.experimental.start(directory, options=options)
        try:
            start = time.perf_counter()
            for index in range(num_steps):
                step(index)
            wall_seconds = time.perf_counter() - start
        finally:
            tf.profiler.experimental.stop()
        files = sorted(Path(directory).rglob("*.xplane.pb"))
        if not files:
            raise RuntimeError(f"the profiler wrote no .xplane.pb file under {directory}")
        return read_trace(files[-1].read_bytes(), num_steps=num_steps, wall_seconds=wall_seconds)


def read_trace(serialized: bytes, *, num_steps: int, wall_seconds: float) -> StepTrace:
    """Reads ops and large allocations out of a serialized XSpace."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(serialized)
    ops: list[OpEvent] = []
    allocations: list[Allocation] = []
    for plane in space.planes:
        if not plane.name.startswith("/host:CPU"):
            continue
        for thread, line in enumerate(plane.lines):
            spans: list[tuple[str, str, int, int]] = []
            for event in line.events:
                metadata = plane.event_metadata[event.metadata_id]
                if metadata.name == ALLOCATION_EVENT:
                    allocations.append(_allocation(plane, event))
                elif metadata.display_name and metadata.name.endswith(":" + metadata.display_name):
                    # An op's event is called "node:Type" and displayed as "Type"; other events have no such
                    # form.
                    name = metadata.name[: -len(metadata.display_name) - 1]
                    spans.append((name, metadata.display_name, event.offset_ps, event.duration_ps))
            ops.extend(_op_events(thread, line.timestamp_ns, spans))
    if not ops:
        raise RuntimeError("the trace has no ops: does the step run TensorFlow ops in this process?")
    return StepTrace(num_steps=num_steps, wall_seconds=wall_seconds, ops=tuple(ops), allocations=tuple(allocations))


def _allocation(plane: Any, event: Any) -> Allocation:
    stats: dict[str, Any] = {}
    for stat in event.stats:
        kind = stat.WhichOneof("value")
        value = getattr(stat, kind) if kind else 0
        stats[plane.stat_metadata[stat.metadata_id].name] = (
            plane.stat_metadata[value].name if kind == "ref_value" else value
        )
    return Allocation(
        op_name=str(stats.get("tf_op") or "(no op)"),
        num_bytes=int(stats.get("requested_bytes") or 0),
        shape=str(stats.get("shape") or ""),
    )


def _op_events(thread: int, timestamp_ns: int, spans: list[tuple[str, str, int, int]]) -> list[OpEvent]:
    """Spans of one thread with the time of the spans nested in them taken off."""
    spans.sort(key=lambda span: (span[2], -span[3]))
    own = [duration for *_, duration in spans]
    open_spans: list[int] = []
    for index, (_, _, start, duration) in enumerate(spans):
        while open_spans and spans[open_spans[-1]][2] + spans[open_spans[-1]][3] <= start:
            open_spans.pop()
        if open_spans:
            own[open_spans[-1]] -= duration
        open_spans.append(index)
    origin = timestamp_ns * 1e-9
    return [
        OpEvent(
            name=name,
            op_type=op_type,
            thread=thread,
            start=origin + start * PICOSECONDS,
            seconds=duration * PICOSECONDS,
            self_seconds=max(own[index], 0) * PICOSECONDS,
        )
        for index, (name, op_type, start, duration) in enumerate(spans)
    ]
