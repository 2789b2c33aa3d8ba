"""Prints where the time of a training step goes, op type by op type and node by node.

    python benchmarks/profile_step.py                              # tfdlrm on Criteo-Kaggle, batch 2048
    python benchmarks/profile_step.py --batch-size 128 --optimizer sgd --top 30
    python benchmarks/profile_step.py --build my_model.py:build    # build() -> (model, [(x, y), ...])

From Python, on any compiled Keras model (`fit`'s own train function is what runs):

    from profile_step import profile_model
    print(profile_model(model, [(x, y)]))

What the numbers mean: `self ms` is time inside ops of that type a step, nested ops not counted twice; ops
run on several threads at once, so the column can add up to more than a step. `busy` is the time in which
any op ran; the rest of the step is Python, dispatch and waiting. Tracing slows a step down, more so the
more ops it has: compare the two step times.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from step_trace import CALL_OPS, StepTrace, trace_steps
from workload import add_workload_arguments, workload_from_arguments

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One line of the table; times and counts are a step's."""

    label: str
    calls: float
    self_seconds: float
    allocated_bytes: float


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """A traced step in numbers; `str()` of it is the report.

    Args:
        step_seconds: Median of untraced steps.
        traced_seconds: Mean of traced steps.
        busy_seconds: Time a traced step in which some op ran.
        by_type: Rows by op type, largest first.
        by_node: Rows by graph node, largest first.
        top: Lines of each table to print.
    """

    step_seconds: float
    traced_seconds: float
    busy_seconds: float
    by_type: tuple[ProfileRow, ...]
    by_node: tuple[ProfileRow, ...]
    top: int = 25

    def __str__(self) -> str:
        idle = max(self.traced_seconds - self.busy_seconds, 0)
        calls = sum(row.calls for row in self.by_type)
        lines = [
            f"step {self.step_seconds * 1e3:.2f} ms (median, not traced); "
            f"traced {self.traced_seconds * 1e3:.2f} ms, some op runs {self.busy_seconds * 1e3:.2f} ms, "
            f"none {idle * 1e3:.2f} ms; {calls:.0f} ops a step",
            "",
            *_table("op type", self.by_type, self.top, self.traced_seconds),
            "",
            *_table("node", self.by_node, self.top, self.traced_seconds),
        ]
        return "\n".join(lines)


def _table(title: str, rows: Sequence[ProfileRow], top: int, step_seconds: float) -> list[str]:
    shown = list(rows[:top])
    if len(rows) > top:
        shown.append(_joined(f"({len(rows) - top} more)", rows[top:]))
    return [
        f"{'self ms':>9} {'% step':>7} {'calls':>7} {'large MiB':>10}  {title}",
        *(
            f"{row.self_seconds * 1e3:9.3f} {100 * row.self_seconds / step_seconds:7.1f} {row.calls:7.1f} "
            f"{row.allocated_bytes / MIB:10.2f}  {row.label}"
            for row in shown
        ),
    ]


def _joined(label: str, rows: Sequence[ProfileRow]) -> ProfileRow:
    return ProfileRow(
        label=label,
        calls=sum(row.calls for row in rows),
        self_seconds=sum(row.self_seconds for row in rows),
        allocated_bytes=sum(row.allocated_bytes for row in rows),
    )


def summarize(trace: StepTrace, *, step_seconds: float, top: int = 25) -> StepProfile:
    """Adds a trace's events up by op type and by node, and divides by the steps traced."""
    # Allocations name the node only; the type it ran as is the op events' knowledge.
    type_of = {op.name: op.op_type for op in trace.ops}
    allocated_by_node: dict[str, float] = defaultdict(float)
    for allocation in trace.allocations:
        allocated_by_node[allocation.op_name] += allocation.num_bytes
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for op in trace.ops:
        if op.op_type not in CALL_OPS:
            seconds[op.name] += op.self_seconds
            calls[op.name] += 1
    nodes = seconds.keys() | allocated_by_node.keys()

    def rows(label_of: Callable[[str], str]) -> tuple[ProfileRow, ...]:
        members: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            members[label_of(node)].append(node)
        unsorted_rows = (
            ProfileRow(
                label=label,
                calls=sum(calls.get(node, 0) for node in group) / trace.num_steps,
                self_seconds=sum(seconds.get(node, 0.0) for node in group) / trace.num_steps,
                allocated_bytes=sum(allocated_by_node.get(node, 0.0) for node in group) / trace.num_steps,
            )
            for label, group in members.items()
        )
        return tuple(sorted(unsorted_rows, key=lambda row: (-row.self_seconds, row.label)))

    return StepProfile(
        step_seconds=step_seconds,
        traced_seconds=trace.wall_seconds / trace.num_steps,
        busy_seconds=trace.busy_seconds / trace.num_steps,
        by_type=rows(lambda node: type_of.get(node, node)),
        by_node=rows(lambda node: f"{node}  [{type_of.get(node, 'no op event')}]"),
        top=top,
    )


def profile_steps(step: Callable[[int], Any], *, num_steps: int = 20, top: int = 25) -> StepProfile:
    """Profiles `step(i)`: first timed without tracing, then traced, `num_steps` times each.

    Args:
        step: Runs training step i to its end; any function that runs TensorFlow ops.
        num_steps: Steps to time and steps to trace.
        top: Lines of each table.
    """
    for index in range(3):
        step(index)
    times = []
    for index in range(num_steps):
        start = time.perf_counter()
        step(index)
        times.append(time.perf_counter() - start)
    trace = trace_steps(step, num_steps=num_steps, warmup_steps=1)
    return summarize(trace, step_seconds=statistics.median(times), top=top)


def step_of(model: Any, batches: Sequence[Any]) -> Callable[[int], Any]:
    """A function of i that runs `fit`'s own training step of a Keras model on `batches[i % len(batches)]`.

    Args:
        model: A compiled `keras.Model` with `steps_per_execution=1`.
        batches: What `train_step` takes, `(x, y)` or `(x, y, sample_weight)`, already tensors.

    Raises:
        ValueError: `steps_per_execution` is not 1: a call would need several batches.
    """
    if model.steps_per_execution != 1:
        raise ValueError(
            f"step_of: steps_per_execution={model.steps_per_execution}. Compile the model with 1 to time single steps."
        )
    model.make_train_function()
    train_function = model.train_function

    def step(index: int) -> Any:
        # Given a plain Python iterator, Keras runs its one-step graph on the data as it is, without tf.data.
        return train_function(iter((batches[index % len(batches)],)))

    return step


def profile_model(model: Any, batches: Sequence[Any], *, num_steps: int = 20, top: int = 25) -> StepProfile:
    """Profiles the training step of any compiled Keras model; see `step_of` for the arguments."""
    return profile_steps(step_of(model, batches), num_steps=num_steps, top=top)


def load_builder(target: str) -> Callable[[], tuple[Any, Sequence[Any]]]:
    """The function that `path/to/file.py:function` names.

    Raises:
        ValueError: The text has no such form, or the file no such function.
    """
    path, separator, name = target.rpartition(":")
    if not separator or not Path(path).is_file():
        raise ValueError(f"--build {target!r}: give an existing file and a function, as in my_model.py:build")
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builder = getattr(module, name, None)
    if not callable(builder):
        raise ValueError(f"--build {target!r}: {path} has no function {name!r}")
    return builder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", help="FILE.py:FUNCTION giving (compiled model, batches); default: tfdlrm")
    parser.add_argument("--optimizer", default="rowwise_adagrad", help="row optimizer of the tfdlrm model")
    parser.add_argument("--steps", type=int, default=20, help="steps to time, and steps to trace")
    parser.add_argument("--top", type=int, default=25, help="lines of each table")
    add_workload_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.build:
        model, batches = load_builder(arguments.build)()
    else:
        from side_tfdlrm import build_model, tensor_batches

        workload = workload_from_arguments(arguments)
        print(f"tfdlrm, {arguments.optimizer}: {workload.to_dict()}")
        model = build_model(workload, arguments.optimizer)
        batches = tensor_batches(workload)
    print(profile_model(model, batches, num_steps=arguments.steps, top=arguments.top))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
