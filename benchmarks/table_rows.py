"""Shows that a training step costs what its batch costs, whatever the number of rows a table has.

    python benchmarks/table_rows.py                         # 4 tables of 10k and of 10M rows, batch 2048
    python benchmarks/table_rows.py --model-rows 100000 100000000   # so many in all tables together
    python benchmarks/table_rows.py --memory                # peak memory of a process with 100M rows
    python benchmarks/table_rows.py --subject keras         # the control: keras.layers.Embedding, which fails

Both sizes are trained on the same ids, all of them in the first 10,000 rows, in turn, each round in a
process of its own. Printed for each: step time; bytes the step's ops allocate (large allocations, from the
profiler's trace), the largest one and who made it; peak of the CPU allocator above its level between steps;
growth of resident memory over all steps; the ops that take longer with more rows; whether the larger tables' step
takes at most 1.15 times as long. Exit code 1 if an op allocated as much as one float a row of a 10M-row table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

from comparison import DISTURBED_SHARE
from machine import this_machine, wait_until_idle
from measurement import RESULT_PREFIX, ChunkTimer, add_timing_arguments
from setup_peers import BENCHMARKS_DIR
from table_memory import MemoryResult, resident_bytes
from targets import Target
from turns import add_record_argument, append_record, heading
from workload import NUM_DENSE, Workload

HOT_ROWS = 10_000
MEMORY_ROWS = 100_000_000  # of all tables together, unless --rows or --model-rows say otherwise
TIME_RATIO = 1.15
MIB = 2**20
BYTES_PER_VALUE = 4
TRACED_STEPS = 10
GROWN_OPS = 5  # to list
SUBJECTS = ("tfdlrm", "keras")


@dataclass(frozen=True, kw_only=True)
class RowsResult:
    """What one process measured with tables of `rows` rows.

    Args:
        rows: Rows of every table.
        step_seconds: Median of chunks.
        allocated_bytes: Of large allocations, a step.
        largest_bytes: Of the largest single allocation in any traced step.
        largest_by: The node that made it, and the tensor's shape.
        peak_bytes: Peak of TensorFlow's CPU allocator during a step above what it holds between steps.
        resident_growth_bytes: How much more memory was resident after all timed steps than before them.
        resident_peak_bytes: Peak resident size up to the last timed step above the size with the model
            built: the step's graph, its buffers and whatever is made the size of a table.
        op_seconds: Self time a step, by op type.
        best_seconds: Shortest chunk.
        others_share: Share of the machine's CPU time that other processes took while steps were timed.
        versions: Of the packages that did the work.
    """

    rows: int
    step_seconds: float
    allocated_bytes: float
    largest_bytes: int
    largest_by: str
    peak_bytes: int
    resident_growth_bytes: int
    resident_peak_bytes: int
    op_seconds: dict[str, float]
    best_seconds: float = 0.0
    others_share: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


def build_keras_control(workload: Workload) -> Any:
    """The same model with `keras.layers.Embedding` and Keras's SGD: what this project exists to avoid."""
    import keras

    inputs = {"dense": keras.Input((NUM_DENSE,), name="dense_values")}
    inputs |= {name: keras.Input((), dtype="int64", name=name) for name in workload.feature_names}
    x = inputs["dense"]
    for width in workload.bottom_mlp:
        x = keras.layers.Dense(width, activation="relu")(x)
    vectors = [
        keras.layers.Embedding(rows, workload.embedding_dim)(inputs[name])
        for name, rows in zip(workload.feature_names, workload.vocabulary_sizes, strict=True)
    ]
    y = keras.layers.Concatenate()([x, *vectors])
    for width in workload.top_mlp[:-1]:
        y = keras.layers.Dense(width, activation="relu")(y)
    model = keras.Model(inputs, keras.layers.Dense(1)(y))
    model.compile(
        keras.optimizers.SGD(workload.learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def measure_rows(arguments: argparse.Namespace) -> RowsResult:
    """Builds the model with `arguments.rows[0]` rows a table and measures its step, in this process."""
    import tensorflow as tf
    from profile_step import step_of, summarize
    from side_tfdlrm import build_model, tensor_batches, versions
    from step_trace import trace_steps

    rows = arguments.rows[0]
    sizes = {"batch_size": arguments.batch_size, "embedding_dim": arguments.embedding_dim}
    workload = Workload(**sizes, table_rows=(rows,) * arguments.tables)
    hot = Workload(**sizes, table_rows=(min(HOT_ROWS, *arguments.all_rows),) * arguments.tables)
    subjects: dict[str, Callable[[], Any]] = {
        "tfdlrm": lambda: build_model(workload, arguments.optimizer),
        "keras": lambda: build_keras_control(workload),
    }
    model = subjects[arguments.subject]()
    step = step_of(model, tensor_batches(hot))
    model.build({"dense": (None, NUM_DENSE)})
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    resident_built = resident_bytes("VmRSS")
    for index in range(5):
        step(index)
    resident_before = resident_bytes("VmRSS")
    timer = ChunkTimer()
    timer.start()
    end = timer.now() + arguments.seconds
    index = 0
    while not timer.is_done(end):
        step(index)
        index += 1
        timer.lap()
    resident_after, resident_peak = resident_bytes("VmRSS"), resident_bytes("VmHWM")
    held = tf.config.experimental.get_memory_info("CPU:0")["current"]
    tf.config.experimental.reset_memory_stats("CPU:0")
    step(0)
    peak = tf.config.experimental.get_memory_info("CPU:0")["peak"]
    trace = trace_steps(step, num_steps=TRACED_STEPS, warmup_steps=1)
    profile = summarize(trace, step_seconds=statistics.median(timer.step_seconds))
    largest = max(trace.allocations, key=lambda allocation: allocation.num_bytes, default=None)
    return RowsResult(
        rows=rows,
        step_seconds=profile.step_seconds,
        allocated_bytes=sum(allocation.num_bytes for allocation in trace.allocations) / trace.num_steps,
        largest_bytes=largest.num_bytes if largest else 0,
        largest_by=f"{largest.op_name} {largest.shape}" if largest else "no large allocation",
        peak_bytes=peak - held,
        resident_growth_bytes=resident_after - resident_before,
        resident_peak_bytes=resident_peak - resident_built,
        op_seconds={row.label: row.self_seconds for row in profile.by_type},
        best_seconds=min(timer.step_seconds),
        others_share=timer.others_share,
        versions=versions(),
    )


def run_child(script: str, rows: int, arguments: argparse.Namespace, *more: str) -> dict[str, Any]:
    """What a script measures with tables of `rows` rows, in a process of its own.

    Raises:
        RuntimeError: The process failed; the error carries the end of what it said.
    """
    command = [sys.executable, str(BENCHMARKS_DIR / script), "--rows", str(rows), "--tables", str(arguments.tables)]
    command += ["--batch-size", str(arguments.batch_size), "--embedding-dim", str(arguments.embedding_dim)]
    command += ["--optimizer", arguments.optimizer, *more]
    path = os.pathsep.join([str(BENCHMARKS_DIR), str(BENCHMARKS_DIR.parent)])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT_PREFIX)]
    if done.returncode or not lines:
        raise RuntimeError(f"tables of {rows:,} rows: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(lines[-1][len(RESULT_PREFIX) :])


def run_rows(rows: int, arguments: argparse.Namespace) -> RowsResult:
    """`measure_rows` in a process of its own."""
    if arguments.wait_idle > 0:
        wait_until_idle(limit=DISTURBED_SHARE, timeout_seconds=arguments.wait_idle)
    more = ["--child", "--all-rows", *map(str, arguments.rows), "--subject", arguments.subject]
    more += ["--seconds", str(arguments.seconds)]
    return RowsResult(**run_child("table_rows.py", rows, arguments, *more))


def grown_ops(small: RowsResult, large: RowsResult) -> list[tuple[str, float]]:
    """Op types by how many seconds a step more they take with the larger tables, most first."""
    names = small.op_seconds.keys() | large.op_seconds.keys()
    grown = [(name, large.op_seconds.get(name, 0.0) - small.op_seconds.get(name, 0.0)) for name in names]
    return sorted(grown, key=lambda pair: -pair[1])[:GROWN_OPS]


def touches_all_rows(result: RowsResult) -> bool:
    """Whether some op allocated a float a row; says nothing where a batch's tensors are as large as that."""
    return result.largest_bytes >= result.rows * BYTES_PER_VALUE


def report(rounds: Sequence[Sequence[RowsResult]]) -> str:
    """A table of both sizes (medians over rounds), the ratio, and what grew.

    Args:
        rounds: One entry a round, each with the results of the sizes, small to large.
    """
    lines = [
        "| rows a table | median ms/step | best ms/step | allocated a step, MiB | largest allocation, MiB "
        "| allocator's peak in a step, MiB | resident growth over steps, MiB "
        "| resident peak above the built model, MiB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    seconds = []
    for position in range(len(rounds[0])):
        results = [one_round[position] for one_round in rounds]
        first = results[0]
        seconds.append(statistics.median(result.step_seconds for result in results))
        best = min(result.best_seconds for result in results)
        lines.append(
            f"| {first.rows:,} | {seconds[-1] * 1e3:.2f} | {best * 1e3:.2f} | "
            f"{first.allocated_bytes / MIB:.1f} | "
            f"{max(result.largest_bytes for result in results) / MIB:.2f} | "
            f"{max(result.peak_bytes for result in results) / MIB:.1f} | "
            f"{max(result.resident_growth_bytes for result in results) / MIB:.1f} | "
            f"{max(result.resident_peak_bytes for result in results) / MIB:.1f} |"
        )
    small, large = rounds[0][0], rounds[0][-1]
    worst = max(result.others_share for one_round in rounds for result in one_round)
    # bytes do not depend on who else is running; times do
    disturbed = f"disturbed: other processes took up to {worst:.0%} of the CPUs; memory is not affected"
    target = Target(
        name=f"step time with {large.rows:,} rows over that with {small.rows:,}",
        value=seconds[-1] / seconds[0],
        at_most=TIME_RATIO,
        unknown_because=disturbed if worst > DISTURBED_SHARE else "",
    )
    lines += [
        "",
        f"- {target}",
        "",
        f"Largest allocation with {large.rows:,} rows: {large.largest_by}; one float a row would be "
        f"{large.rows * BYTES_PER_VALUE / MIB:.1f} MiB.  ",
        "Ops that took longer, ms a step: "
        + ", ".join(f"{name} {difference * 1e3:+.3f}" for name, difference in grown_ops(small, large))
        + ".",
    ]
    return "\n".join(lines)


def measure_memory(arguments: argparse.Namespace) -> str:
    """The report of `table_memory.py` for the largest of the sizes."""
    result = MemoryResult(**run_child("table_memory.py", arguments.rows[-1], arguments))
    title = f"Peak memory: {arguments.optimizer}, {arguments.tables} tables, D = {arguments.embedding_dim}"
    method = "Method: a fresh process creates the model, trains it and saves its tables; peaks of its resident size."
    return "\n".join([*heading(title, this_machine(), result.versions), method, "", result.to_markdown()]) + "\n"


def measure_step_times(arguments: argparse.Namespace) -> tuple[str, int]:
    """The report of all sizes in turn, and the exit code."""
    machine = this_machine()
    rounds: list[list[RowsResult]] = []
    for number in range(arguments.rounds):
        rounds.append([run_rows(rows, arguments) for rows in arguments.rows])
        times = ", ".join(f"{result.rows:,} rows {result.step_seconds * 1e3:.2f} ms" for result in rounds[-1])
        print(f"  round {number + 1}: {times}", flush=True)
    title = (
        f"Step against rows a table: {arguments.subject}, "
        f"{'sgd' if arguments.subject == 'keras' else arguments.optimizer}, {arguments.tables} tables, "
        f"D = {arguments.embedding_dim}, batch {arguments.batch_size}, ids from the first "
        f"{min(HOT_ROWS, *arguments.rows):,} rows"
    )
    method = f"Method: {arguments.rounds} rounds in turn, each size in its own process, medians."
    lines = [*heading(title, machine, rounds[0][0].versions), method, "", report(rounds)]
    failed = any(touches_all_rows(one_round[-1]) for one_round in rounds)
    return "\n".join(lines) + "\n", 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 10_000_000], help="rows a table, small to large"
    )
    parser.add_argument("--model-rows", type=int, nargs="+", help="rows of all tables together, in place of --rows")
    parser.add_argument("--memory", action="store_true", help=f"peak memory instead, {MEMORY_ROWS:,} rows by default")
    parser.add_argument("--tables", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--optimizer", default="rowwise_adagrad", help="row optimizer")
    parser.add_argument("--subject", choices=SUBJECTS, default="tfdlrm")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--wait-idle", type=float, default=0, help="seconds to wait for an idle machine before each")
    add_record_argument(parser)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--all-rows", type=int, nargs="+", help=argparse.SUPPRESS)
    add_timing_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(RESULT_PREFIX + json.dumps(asdict(measure_rows(arguments))), flush=True)
        return 0
    if arguments.model_rows:
        arguments.rows = [rows // arguments.tables for rows in arguments.model_rows]
    elif arguments.memory and arguments.rows == parser.get_default("rows"):
        arguments.rows = [MEMORY_ROWS // arguments.tables]
    text, failed = (measure_memory(arguments), 0) if arguments.memory else measure_step_times(arguments)
    print("\n" + text)
    append_record(arguments.record, text)
    if failed:
        print("failed: an op allocates memory that grows with the table")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
