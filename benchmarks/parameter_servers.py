"""Parameter servers: bytes on the wire a step, and what a step over processes costs beside one process.

    python benchmarks/parameter_servers.py                  # both, about 12 minutes
    python benchmarks/parameter_servers.py --only wire      # 1, 2 and 4 servers x tables of 10k ... 10M rows
    python benchmarks/parameter_servers.py --only step      # one process, 1 x 1 and 2 x 2, in turn

The bytes are those of all connections of the servers' processes, as the kernel counts them. They are judged by what a
step has to send: for each unique id the id and its row there and back, and the dense weights and their gradients.

All processes share the machine's cores, so `2 x 2` cannot be faster than `1 x 1` by more than what that left idle; on
machines of their own it could. Processor time by kind of process says where a step's time goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from comparison import DISTURBED_SHARE
from machine import this_machine, wait_until_idle
from measurement import RESULT_PREFIX
from setup_peers import BENCHMARKS_DIR
from side_parameter_servers import ROLES, ClusterResult
from targets import Target
from turns import add_record_argument, append_record, heading
from workload import Workload

WIRE_SERVERS = (1, 2, 4)
WIRE_ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
WIRE_TABLES = 4
WIRE_RATIO = 1.15
STEP_RATIO = 2.5
MB = 1e6


def run_side(workload: Workload, workers: int, servers: int, arguments: argparse.Namespace) -> ClusterResult:
    """What `side_parameter_servers.py` measures, in a process of its own.

    Raises:
        RuntimeError: The process failed; the error carries the end of what it said.
    """
    if arguments.wait_idle > 0:
        wait_until_idle(limit=DISTURBED_SHARE, timeout_seconds=arguments.wait_idle)
    command = [sys.executable, str(BENCHMARKS_DIR / "side_parameter_servers.py"), *workload.to_flags()]
    command += ["--workers", str(workers), "--parameter-servers", str(servers), "--steps", str(arguments.steps)]
    path = os.pathsep.join([str(BENCHMARKS_DIR), str(BENCHMARKS_DIR.parent)])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT_PREFIX)]
    if done.returncode or not lines:
        raise RuntimeError(f"{workers} x {servers}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return ClusterResult(**json.loads(lines[-1][len(RESULT_PREFIX) :]))


def name_of(result: ClusterResult) -> str:
    """`2 x 2`: workers x servers."""
    if not result.workers:
        return "one process"
    return f"{result.workers} x {result.parameter_servers}"


def wire_report(found: Sequence[tuple[int, ClusterResult]]) -> list[str]:
    """Bytes a step against what a step has to send.

    Args:
        found: rows of each table, and what was measured.
    """
    lines = [
        "| servers | rows a table | unique ids a step | MB a step | rows and ids, MB | dense, MB | measured / needed |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for rows, result in found:
        dense = 2 * result.dense_bytes
        lines.append(
            f"| {result.parameter_servers} | {rows:,} | {result.unique_ids:,.0f} | {result.wire_bytes / MB:.3f} "
            f"| {(result.needed_bytes - dense) / MB:.3f} | {dense / MB:.3f} "
            f"| {result.wire_bytes / result.needed_bytes:.3f}× |"
        )
    worst = max(result.wire_bytes / result.needed_bytes for _, result in found)
    return [
        *lines,
        "",
        "Target:",
        "",
        f"- {Target(name='bytes over needed, at worst', value=worst, at_most=WIRE_RATIO)}",
    ]


def step_report(rounds: Sequence[Sequence[ClusterResult]], batch_size: int) -> list[str]:
    """Medians over rounds of one process and of clusters; the first of each round is one process."""
    lines = [
        "| workers x servers | median ms/step | samples/s | beside one process | "
        + " | ".join(f"{role} CPU ms/step" for role in ROLES)
        + " |",
        "|---|--:|--:|--:|" + "--:|" * len(ROLES),
    ]
    sides = list(zip(*rounds, strict=True))
    medians = [statistics.median(result.step_seconds for result in side) for side in sides]
    for side, median in zip(sides, medians, strict=True):
        cpu = [statistics.median(result.cpu_seconds[role] for result in side) * 1e3 for role in ROLES]
        lines.append(
            f"| {name_of(side[0])} | {median * 1e3:.1f} | {batch_size / median:,.0f} | {median / medians[0]:.2f}× | "
            + " | ".join(f"{value:.1f}" for value in cpu)
            + " |"
        )
    disturbed = max(result.others_share for side in sides for result in side)
    because = (
        f"disturbed: other processes took up to {disturbed:.0%} of the CPUs" if disturbed > DISTURBED_SHARE else ""
    )
    target = Target(
        name="1 x 1 over one process", value=medians[1] / medians[0], at_most=STEP_RATIO, unknown_because=because
    )
    return [*lines, "", "Target:", "", f"- {target}"]


def measure_wire(workload: Workload, arguments: argparse.Namespace) -> str:
    found = []
    for rows in WIRE_ROWS:
        for servers in WIRE_SERVERS:
            result = run_side(replace(workload, table_rows=(rows,) * WIRE_TABLES), 1, servers, arguments)
            found.append((rows, result))
            ratio = result.wire_bytes / result.needed_bytes
            print(f"  {servers} servers, {rows:,} rows: {result.wire_bytes / MB:.3f} MB, {ratio:.3f}×", flush=True)
    title = f"Bytes on the wire: {WIRE_TABLES} tables, D = {workload.embedding_dim}, batch {workload.batch_size}"
    method = (
        f"Method: one worker, {arguments.steps} steps of asynchronous `fit` after warm-up, row-wise Adagrad; bytes of "
        "all connections of the servers' processes, sent and received, as the kernel counts them; ids by the "
        "workload's power law. Needed: unique ids × (8 + 2 · 4 · D) + 2 × dense weights."
    )
    return "\n".join([*heading(title, this_machine(), found[0][1].versions), method, "", *wire_report(found)]) + "\n"


def measure_steps(workload: Workload, arguments: argparse.Namespace) -> str:
    rounds = []
    for number in range(arguments.rounds):
        rounds.append([run_side(workload, count, count, arguments) for count in (0, 1, 2)])
        times = ", ".join(f"{name_of(result)} {result.step_seconds * 1e3:.1f} ms" for result in rounds[-1])
        print(f"  round {number + 1}: {times}", flush=True)
    title = (
        f"Step over parameter servers: batch {workload.batch_size}, D = {workload.embedding_dim}, "
        f"{workload.num_features} tables, {sum(workload.vocabulary_sizes):,} rows"
    )
    method = (
        f"Method: {arguments.rounds} rounds in turn, each side in processes of its own on the same {os.cpu_count()} "
        f"cores, {arguments.steps} steps of `fit` (asynchronous) on batches ready in memory; medians."
    )
    report = step_report(rounds, workload.batch_size)
    return "\n".join([*heading(title, this_machine(), rounds[0][0].versions), method, "", *report]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("wire", "step"))
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--max-rows", type=int, default=1_000_000, help="cap on rows a table, of the step's comparison")
    parser.add_argument(
        "--steps", type=int, default=96, help="timed or counted; a multiple of 16, the batches there are"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--wait-idle", type=float, default=0, help="seconds to wait for an idle machine before each run"
    )
    add_record_argument(parser)
    arguments = parser.parse_args(argv)
    workload = Workload(batch_size=arguments.batch_size, embedding_dim=arguments.embedding_dim)
    if arguments.steps % workload.num_batches:
        parser.error(f"--steps {arguments.steps} is no multiple of the {workload.num_batches} batches")
    texts = []
    if arguments.only != "step":
        texts.append(measure_wire(workload, arguments))
    if arguments.only != "wire":
        texts.append(measure_steps(replace(workload, max_rows=arguments.max_rows), arguments))
    text = "\n".join(texts)
    print("\n" + text)
    append_record(arguments.record, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
