"""Compares the training step of this project with its peers, in turn, in one sitting.

    python benchmarks/train_step.py                    # batch 128 and 2048, all sides, three rounds
    python benchmarks/train_step.py --batch-sizes 16384 --rounds 5
    python benchmarks/train_step.py --embedding-dim 64 --max-rows 1000000 --batch-sizes 2048
    python benchmarks/train_step.py --sides tfdlrm-sgd torch-sgd --record

A machine's speed drifts, so every round runs each side once, each in a process of its own, and what counts
is the ratio of the medians. Peers come from `python benchmarks/setup_peers.py`; one that is not installed
is named in the report.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from comparison import DISTURBED_SHARE, Sitting, summarize_side
from machine import Machine, available_memory_bytes, this_machine, wait_until_idle
from measurement import SideResult, add_timing_arguments
from setup_peers import BENCHMARKS_DIR
from sides import SIDES, Absence, missing_peer, run_side
from workload import Workload

DEFAULT_JSON = BENCHMARKS_DIR.parent / "build" / "benchmarks" / "train_step.json"
RECORD_FILE = BENCHMARKS_DIR / "RESULTS.md"
# A table, a gradient or slot of the same size, and what a framework needs to start; a warning, not a limit.
TABLE_COPIES = 2
FRAMEWORK_BYTES = 2 * 2**30
BYTES_PER_VALUE = 4

Runner = Callable[[str, Workload], SideResult | Absence]


def run_sitting(workload: Workload, names: Sequence[str], rounds: int, run: Runner) -> Sitting:
    """Runs every side once a round, for `rounds` rounds.

    A peer that is not installed is asked once; one that fails in a round is not run again and is reported
    as absent, even where it had finished earlier rounds: half a result would look like a whole one.

    Args:
        workload: What to run.
        names: Keys of `SIDES`, in the order to run them.
        rounds: How often.
        run: Runs one side once.
    """
    results: dict[str, list[SideResult]] = {name: [] for name in names}
    absences: dict[str, Absence] = {}
    for number in range(rounds):
        for name in names:
            if name in absences:
                continue
            outcome = run(name, workload)
            if isinstance(outcome, Absence):
                absences[name] = outcome
                print(f"  round {number + 1}: {name}: {outcome.reason}", flush=True)
                continue
            results[name].append(outcome)
            rate = workload.batch_size / outcome.median_seconds
            print(
                f"  round {number + 1}: {name}: {outcome.median_seconds * 1e3:.2f} ms a step, "
                f"{rate:,.0f} samples/s, others took {outcome.others_share:.0%} of the CPUs",
                flush=True,
            )
    return Sitting(
        workload=workload.to_dict(),
        summaries=tuple(summarize_side(results[name]) for name in names if name not in absences),
        absences=tuple(absences.values()),
    )


def run_undisturbed(
    run: Callable[[], SideResult | Absence], *, retries: int, wait_seconds: float
) -> SideResult | Absence:
    """Runs a side once the machine is idle, and again where other processes disturbed it.

    Args:
        run: Runs the side once.
        retries: How often to run it again; the least disturbed result is kept.
        wait_seconds: How long to wait for an idle machine before each run; 0 does not wait.
    """
    best: SideResult | None = None
    for _ in range(retries + 1):
        if wait_seconds > 0:
            wait_until_idle(limit=DISTURBED_SHARE, timeout_seconds=wait_seconds)
        outcome = run()
        if isinstance(outcome, Absence):
            return outcome
        if best is None or outcome.others_share < best.others_share:
            best = outcome
        if best.others_share <= DISTURBED_SHARE:
            break
    assert best is not None
    return best


def report(machine: Machine, sittings: Sequence[Sitting], *, rounds: int, seconds: float) -> str:
    """The whole sitting as Markdown."""
    versions: dict[str, str] = {}
    for sitting in sittings:
        for summary in sitting.summaries:
            versions.update(summary.versions)
    lines = [
        f"## Training step, {date.today().isoformat()}",
        "",
        f"Machine: {machine}.  ",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".  ",
        f"Method: {rounds} rounds, each side in turn in its own process, {seconds:g} s a side and round "
        "after warm-up; median = median of the rounds' medians, best = the fastest quarter second.",
    ]
    for sitting in sittings:
        lines += ["", sitting.to_markdown()]
    return "\n".join(lines) + "\n"


def _warn_if_memory_is_short(workload: Workload) -> None:
    available = available_memory_bytes()
    rows = sum(workload.vocabulary_sizes)
    needed = TABLE_COPIES * rows * workload.embedding_dim * BYTES_PER_VALUE + FRAMEWORK_BYTES
    if available is not None and available < needed:
        print(
            f"warning: {needed / 2**30:.1f} GiB may be needed and {available / 2**30:.1f} GiB are available; "
            "lower --max-rows",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--max-rows", type=int, default=None, help="cap on rows a table (default: all 33.8M)")
    parser.add_argument(
        "--sides", nargs="+", default=list(SIDES), choices=list(SIDES), metavar="SIDE", help=", ".join(SIDES)
    )
    parser.add_argument("--rounds", type=int, default=3)
    add_timing_arguments(parser)
    parser.add_argument(
        "--wait-idle", type=float, default=0, help="seconds to wait for an idle machine before each run"
    )
    parser.add_argument("--retries", type=int, default=0, help="runs to repeat where other processes disturbed one")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one side in one round")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, help="where to write the numbers")
    parser.add_argument(
        "--record",
        nargs="?",
        type=Path,
        const=RECORD_FILE,
        help="append the report to RESULTS.md, or to this file",
    )
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {arguments.rounds}")

    machine = this_machine()
    print(f"machine: {machine}")
    for name in arguments.sides:
        absence = missing_peer(name)
        if absence is not None:
            print(f"{name}: {absence.reason}")
    sittings = []
    for batch_size in arguments.batch_sizes:
        workload = Workload(batch_size=batch_size, embedding_dim=arguments.embedding_dim, max_rows=arguments.max_rows)
        print(f"workload: {workload.to_dict()}", flush=True)
        _warn_if_memory_is_short(workload)

        def run(name: str, workload: Workload) -> SideResult | Absence:
            def once() -> SideResult | Absence:
                return run_side(name, workload, seconds=arguments.seconds, timeout_seconds=arguments.timeout)

            return run_undisturbed(once, retries=arguments.retries, wait_seconds=arguments.wait_idle)

        sittings.append(run_sitting(workload, arguments.sides, arguments.rounds, run))
    text = report(machine, sittings, rounds=arguments.rounds, seconds=arguments.seconds)
    print("\n" + text)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"machine": machine.to_dict(), "rounds": arguments.rounds, "seconds": arguments.seconds}
    arguments.json.write_text(json.dumps({**numbers, "sittings": [s.to_dict() for s in sittings]}, indent=1) + "\n")
    if arguments.record:
        with arguments.record.open("a") as file:
            file.write("\n" + text)
    # A peer may be absent; this project may not.
    broken = [a.side for s in sittings for a in s.absences if SIDES[a.side].environment is None]
    if broken:
        print(f"failed: {', '.join(sorted(set(broken)))}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
