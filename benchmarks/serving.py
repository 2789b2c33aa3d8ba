"""Serves the Criteo-Kaggle DLRM with the same weights in several ways, and times single calls and load.

    python benchmarks/serving.py                        # calls and load; tables capped at 1M rows
    python benchmarks/serving.py --parts calls          # `rank` and `predict` of 500 rows, one row: p50, p90, p99
    python benchmarks/serving.py --parts load           # MLPerf LoadGen: Server (p99 <= 60 ms) and Offline
    python benchmarks/serving.py --full-rows --record

Peers: the same model in PyTorch as TorchScript, and exported to ONNX and run by ONNX Runtime. They score full rows;
`rank` gets the same candidates with the user's features once. All probabilities are compared first. Load is driven by
LoadGen; these are not MLPerf results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from comparison import DISTURBED_SHARE
from machine import this_machine, usable_cores, wait_until_idle
from serving_calls import CallResult, CallTimes, summarize_rounds
from serving_report import calls_table, is_own, load_table, ratios_table, targets
from serving_side import ROWS
from serving_sides import SERVING_SIDES, run_serving_side
from setup_peers import BENCHMARKS_DIR
from sides import Absence
from turns import NUMBERS_DIR, add_record_argument, append_record, heading
from workload import Workload

TITLE = "Serving"
MAX_ROWS = 1_000_000
PARTS = ("calls", "load")
# A search begins with an Offline run and makes at most nine probes, and loading takes its time.
LOAD_RUNS = 12


def prepare(folder: Path, workload: Workload) -> None:
    """Writes the model, its weights and its answers; in a process of its own, which gives its memory back.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    path = os.pathsep.join(map(str, (BENCHMARKS_DIR, BENCHMARKS_DIR.parent)))
    command = [sys.executable, str(BENCHMARKS_DIR / "serving_export.py"), str(folder), *workload.to_flags()]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"})


class Turns:
    """Runs sides in turn and keeps what they found; a side that failed once is not run again."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = folder, arguments
        self.absences: dict[str, Absence] = {}
        self.versions: dict[str, str] = {}
        self.differences: dict[str, float] = {}

    def run(self, name: str, flags: Sequence[str], *, threads: int, timeout_seconds: float) -> CallResult | None:
        """One side once; None where it is absent."""
        if name in self.absences:
            return None
        if self.arguments.wait_idle > 0:
            wait_until_idle(limit=DISTURBED_SHARE, timeout_seconds=self.arguments.wait_idle)
        found = run_serving_side(name, self.folder, flags, threads=threads, timeout_seconds=timeout_seconds)
        if isinstance(found, Absence):
            self.absences[name] = found
            print(f"  {name}: {found.reason}", flush=True)
            return None
        self.versions |= found.versions
        self.differences[name] = max(self.differences.get(name, 0.0), found.largest_difference)
        return found

    def calls(self, names: Sequence[str]) -> dict[str, dict[int, CallTimes]]:
        """Times of all sides, medians over the rounds."""
        rounds: dict[str, list[CallResult]] = {name: [] for name in names}
        flags = ["--seconds", str(self.arguments.seconds)]
        for number in range(self.arguments.rounds):
            for name in names:
                threads = SERVING_SIDES[name].threads or self.arguments.threads
                found = self.run(name, flags, threads=threads, timeout_seconds=self.arguments.timeout)
                if found is None:
                    continue
                rounds[name].append(found)
                said = ", ".join(
                    f"{rows} row(s) p50 {each.p50 * 1e3:.2f} p99 {each.p99 * 1e3:.2f} ms "
                    f"(others {each.others_share:.0%})"
                    for rows, each in found.times.items()
                )
                print(f"  round {number + 1}: {name}: {said}", flush=True)
        return {
            name: {
                rows: summarize_rounds([each.times[str(rows)] for each in rounds[name]])
                for rows in SERVING_SIDES[name].rows
            }
            for name in names
            if name not in self.absences
        }

    def loads(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What LoadGen found for each side that takes load."""
        arguments = self.arguments
        flags = ["--load-seconds", str(arguments.probe_seconds), "--lanes", str(arguments.lanes)]
        flags += ["--rate-tolerance", str(arguments.rate_tolerance)]
        timeout = LOAD_RUNS * (2 * arguments.probe_seconds + 10) + arguments.timeout
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            if SERVING_SIDES[name].takes_load:
                threads = max(1, usable_cores() // arguments.lanes)
                result = self.run(name, flags, threads=threads, timeout_seconds=timeout)
                if result is not None and result.load is not None:
                    found[name] = dict(result.load)
        return found


def _single_threaded() -> list[str]:
    return [name for name, side in SERVING_SIDES.items() if side.threads == 1]


def method_lines(
    arguments: argparse.Namespace, sizes: Mapping[str, int | None], differences: Mapping[str, float]
) -> list[str]:
    """What was run and how, below the heading."""
    capped = f" (at most {sizes['max_rows']:,} a table)" if sizes["max_rows"] else ""
    return [
        f"Model: Criteo-Kaggle DLRM, D = {sizes['embedding_dim']}, {sizes['total_rows']:,} rows{capped}, random "
        "weights, the same in all sides; "
        f"probabilities at most {max(differences.values(), default=0):.1e} from the live model's.  ",
        f"Calls: {arguments.rounds} rounds, each side in turn in its own process, {arguments.seconds:g} s a size after "
        f"warm-up, {arguments.threads} threads a call ({', '.join(_single_threaded())}: 1); medians over the rounds.  ",
        "Load: LoadGen's Server and Offline scenarios, dlrm-v2's 100 to 700 pairs a query and p99 <= 60 ms, "
        f"{arguments.probe_seconds:g} s a run or longer, {arguments.lanes} queries scored at once; the highest rate by "
        f"bisection to {arguments.rate_tolerance:.0%}. Driven by LoadGen; not MLPerf results.",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sides", nargs="+", choices=tuple(SERVING_SIDES), default=tuple(SERVING_SIDES))
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--max-rows", type=int, default=MAX_ROWS, help="cap on rows a table (default: %(default)s)")
    rows.add_argument("--full-rows", action="store_true", help="no cap: 33.8M rows, 2.2 GB")
    parser.add_argument("--folder", type=Path, default=NUMBERS_DIR / "serving", help="for the model; made anew")
    parser.add_argument("--keep-model", action="store_true", help="of an earlier run in the folder")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="a timed call may use")
    parser.add_argument("--rounds", type=int, default=3, help="of timed calls")
    parser.add_argument("--seconds", type=float, default=5.0, help="a side, size and round")
    parser.add_argument("--probe-seconds", type=float, default=20.0, help="of each of LoadGen's runs, at least")
    parser.add_argument("--lanes", type=int, default=usable_cores(), help="queries scored at once under load")
    parser.add_argument("--rate-tolerance", type=float, default=0.05, help="of the highest rate that is held")
    parser.add_argument("--wait-idle", type=float, default=0, help="seconds to wait for an idle machine before a run")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one side in one round")
    parser.add_argument("--json", type=Path, default=NUMBERS_DIR / "serving.json", help="where to write the numbers")
    add_record_argument(parser)
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {arguments.rounds}")
    machine = this_machine()
    print(f"machine: {machine}", flush=True)
    workload = replace(Workload(), max_rows=None if arguments.full_rows else arguments.max_rows)
    if not arguments.keep_model:
        prepare(arguments.folder, workload)
    turns = Turns(arguments.folder, arguments)
    times = turns.calls(arguments.sides) if "calls" in arguments.parts else {}
    loads = turns.loads(arguments.sides) if "load" in arguments.parts else {}
    absences = list(turns.absences.values())
    judged = targets(times, loads, absences)
    sizes = workload.to_dict()
    lines = [*heading(TITLE, machine, turns.versions), *method_lines(arguments, sizes, turns.differences)]
    for size in ROWS if times else ():
        lines += ["", *calls_table(times, size), *ratios_table(times, size)]
    lines += ["", *load_table(loads)] if loads else []
    lines += (
        ["", *(f"- {each.side}: {' '.join(each.reason.splitlines()[:1])}" for each in absences)] if absences else []
    )
    lines += ["", "Targets:", "", *(f"- {target}" for target in judged)] if judged else []
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    numbers = {
        "machine": machine.to_dict(),
        "workload": sizes,
        "calls": {name: {rows: asdict(each) for rows, each in found.items()} for name, found in times.items()},
        "loads": loads,
        "absent": {each.side: each.reason for each in absences},
        "largest_difference": turns.differences,
        "targets": {target.name: {"value": target.value, "met": target.is_met} for target in judged},
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    append_record(arguments.record, text)
    broken = [each.side for each in absences if is_own(each.side)]
    if broken:
        print(f"failed: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
