"""Runs the sides of a comparison in turn and reports the sitting: what every comparison script shares.

A machine's speed drifts, so every round runs each side once, each in a process of its own, and what counts
is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from comparison import DISTURBED_SHARE, Sitting, summarize_side
from machine import Machine, available_memory_bytes, this_machine, wait_until_idle
from measurement import SideResult, add_timing_arguments
from setup_peers import BENCHMARKS_DIR
from sides import SIDES, Absence, missing_peer, run_side
from targets import Target
from workload import Workload

NUMBERS_DIR = BENCHMARKS_DIR.parent / "build" / "benchmarks"
RECORD_FILE = BENCHMARKS_DIR / "RESULTS.md"
# A table, a gradient or slot of the same size, and what a framework needs to start; a warning, not a limit.
TABLE_COPIES = 2
FRAMEWORK_BYTES = 2 * 2**30
BYTES_PER_VALUE = 4

Runner = Callable[[str, Workload], SideResult | Absence]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sides to run in turn on one workload; `title` says what is timed where it is not the training step."""

    workload: Workload
    sides: tuple[str, ...]
    title: str = ""


def add_turn_arguments(parser: argparse.ArgumentParser, name: str, *, rounds: int = 3) -> None:
    """Adds the flags of a sitting; `name` is of the script, for its file of numbers."""
    parser.add_argument("--rounds", type=int, default=rounds)
    add_timing_arguments(parser)
    parser.add_argument(
        "--wait-idle", type=float, default=0, help="seconds to wait for an idle machine before each run"
    )
    parser.add_argument("--retries", type=int, default=0, help="runs to repeat where other processes disturbed one")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one side in one round")
    parser.add_argument("--json", type=Path, default=NUMBERS_DIR / f"{name}.json", help="where to write the numbers")
    add_record_argument(parser)


def add_record_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--record`."""
    parser.add_argument(
        "--record",
        nargs="?",
        type=Path,
        const=RECORD_FILE,
        help="append the report to RESULTS.md, or to this file",
    )


def append_record(path: Path | None, text: str) -> None:
    """Appends a report where `--record` asks for it."""
    if path is not None:
        with path.open("a") as file:
            file.write("\n" + text)


def run_sitting(workload: Workload, names: Sequence[str], rounds: int, run: Runner, title: str = "") -> Sitting:
    """Runs every side once a round, for `rounds` rounds.

    A peer that is not installed is asked once; one that fails in a round is not run again and is reported
    as absent, even where it had finished earlier rounds: half a result would look like a whole one.

    Args:
        workload: What to run.
        names: Keys of `SIDES`, in the order to run them.
        rounds: How often.
        run: Runs one side once.
        title: Of the sitting.
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
        title=title,
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


def run_cases(cases: Sequence[Case], arguments: argparse.Namespace) -> list[Sitting]:
    """Runs each case's sides in turn, as the flags of `add_turn_arguments` say.

    Raises:
        SystemExit: There are less than one rounds to run.
    """
    if arguments.rounds < 1:
        raise SystemExit(f"--rounds must be at least 1, not {arguments.rounds}")
    for name in dict.fromkeys(name for case in cases for name in case.sides):
        absence = missing_peer(name)
        if absence is not None:
            print(f"{name}: {absence.reason}")

    def run(name: str, workload: Workload) -> SideResult | Absence:
        def once() -> SideResult | Absence:
            return run_side(name, workload, seconds=arguments.seconds, timeout_seconds=arguments.timeout)

        return run_undisturbed(once, retries=arguments.retries, wait_seconds=arguments.wait_idle)

    sittings = []
    for case in cases:
        print(f"workload: {case.title} {case.workload.to_dict()}".replace("  ", " "), flush=True)
        _warn_if_memory_is_short(case.workload)
        sittings.append(run_sitting(case.workload, case.sides, arguments.rounds, run, case.title))
    return sittings


def report(
    title: str,
    machine: Machine,
    sittings: Sequence[Sitting],
    *,
    rounds: int,
    seconds: float,
    targets: Sequence[Target] = (),
    notes: Sequence[str] = (),
) -> str:
    """The whole sitting as Markdown; `notes` come last."""
    versions: dict[str, str] = {}
    for sitting in sittings:
        for summary in sitting.summaries:
            versions.update(summary.versions)
    lines = [
        *heading(title, machine, versions),
        f"Method: {rounds} rounds, each side in turn in its own process, {seconds:g} s a side and round "
        "after warm-up; median = median of the rounds' medians, best = the fastest quarter second.",
    ]
    for sitting in sittings:
        lines += ["", sitting.to_markdown()]
    if targets:
        lines += ["", "Targets:", "", *(f"- {target}" for target in targets)]
    return "\n".join([*lines, *notes]) + "\n"


def heading(title: str, machine: Machine, versions: Mapping[str, str]) -> list[str]:
    """The first lines of every report."""
    return [
        f"## {title}, {date.today().isoformat()}",
        "",
        f"Machine: {machine}.  ",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".  ",
    ]


def run_comparison(
    title: str,
    cases: Sequence[Case],
    arguments: argparse.Namespace,
    *,
    targets: Callable[[Sequence[Sitting]], Sequence[Target]] = lambda sittings: (),
    notes: Callable[[Sequence[Sitting]], Sequence[str]] = lambda sittings: (),
) -> int:
    """Runs the cases, prints, writes and records their report.

    Args:
        title: Of the report.
        cases: What to run.
        arguments: Flags of `add_turn_arguments`.
        targets: Judges the sittings, one a case.
        notes: Further lines of the report, from the sittings.

    Returns:
        The exit code: 1 where a side of this project failed.
    """
    machine = this_machine()
    print(f"machine: {machine}")
    sittings = run_cases(cases, arguments)
    judged, noted = targets(sittings), notes(sittings)
    text = report(
        title, machine, sittings, rounds=arguments.rounds, seconds=arguments.seconds, targets=judged, notes=noted
    )
    print("\n" + text)
    numbers: dict[str, Any] = {
        "machine": machine.to_dict(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "sittings": [sitting.to_dict() for sitting in sittings],
        "targets": {target.name: {"value": target.value, "met": target.is_met} for target in judged},
        "notes": list(noted),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    append_record(arguments.record, text)
    return exit_code(sittings)


def exit_code(sittings: Sequence[Sitting]) -> int:
    """1, and a line that names them, where sides of this project failed. A peer may be absent."""
    broken = [a.side for s in sittings for a in s.absences if SIDES[a.side].environment is None]
    if broken:
        print(f"failed: {', '.join(sorted(set(broken)))}")
    return 1 if broken else 0


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
