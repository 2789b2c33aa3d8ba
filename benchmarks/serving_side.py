"""What every side of the serving benchmark does, in its own process: check the answers, time calls, take load.

    SCRIPT KIND --folder build/benchmarks/serving [--load-seconds 20 --lanes 2]

A side is a function that makes calls of queries: everything that can be done beforehand (its own tensors, a request's
bytes) is done when the call is made, and what is timed is the call and the answer as an array.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from serving_calls import CallResult, CallTimes, time_calls
from serving_load import LoadResult, run_load
from serving_requests import Query, make_queries, query_sizes
from serving_search import highest_passing_rate
from workload import Workload, add_workload_arguments, workload_from_arguments

WORKLOAD_FILE = "workload.json"
WEIGHTS_FILE = "weights.npz"
ANSWERS_FILE = "answers.npz"
EXPORT_FOLDER = "export/1"
ROWS = (500, 1)  # a call
CALLS = 8  # different ones of each number of rows
LARGEST_DIFFERENCE = 1e-6  # between probabilities of the same weights in float32
LOAD_SAMPLES = 512  # different queries for the load generator, in memory: 270 rows each on average
LOAD_SEED = 1
FIRST_SHARE = 0.7  # of what the lanes could do without a pause: where the search begins

Call = Callable[[], np.ndarray]
MakeCall = Callable[[Query], Call]


def timed_queries(workload: Workload, rows: int) -> list[Query]:
    """The queries whose calls are timed; their answers are in `ANSWERS_FILE`."""
    return make_queries(workload, [rows] * CALLS, seed=rows)


def load_queries(workload: Workload) -> list[Query]:
    """The load generator's samples, sizes by the published quantiles."""
    return make_queries(workload, query_sizes(LOAD_SAMPLES, np.random.default_rng(LOAD_SEED)), seed=LOAD_SEED)


def read_workload(folder: Path) -> Workload:
    """The workload that the folder was made for."""
    parser = argparse.ArgumentParser()
    add_workload_arguments(parser)
    return workload_from_arguments(parser.parse_args(json.loads((folder / WORKLOAD_FILE).read_text())))


def check_answers(side: str, folder: Path, calls: Mapping[int, Sequence[Call]]) -> float:
    """Compares probabilities with the live model's.

    Returns:
        The largest difference.

    Raises:
        SystemExit: it is above `LARGEST_DIFFERENCE`, or a shape is another.
    """
    largest = 0.0
    with np.load(folder / ANSWERS_FILE) as answers:
        for rows, each in calls.items():
            for index, call in enumerate(each):
                found, expected = call().reshape(-1), answers[f"{rows}_{index}"]
                if found.shape != expected.shape:
                    raise SystemExit(f"{side}: {len(found)} probabilities, and the model gives {len(expected)}")
                # np.maximum and not max: it keeps a NaN
                largest = float(np.maximum(largest, np.abs(found - expected).max()))
    if not largest <= LARGEST_DIFFERENCE:
        raise SystemExit(f"{side}: probabilities differ from the model's by {largest:.1e}; it serves another model")
    return largest


def run_calls(side: str, make_call: MakeCall, arguments: argparse.Namespace, versions: Mapping[str, str]) -> CallResult:
    """Checks and times the calls of one side; takes load where it is asked to."""
    workload = read_workload(arguments.folder)
    calls = {rows: [make_call(query) for query in timed_queries(workload, rows)] for rows in arguments.rows}
    difference = check_answers(side, arguments.folder, calls)
    times: dict[str, CallTimes] = {}
    load = None
    if arguments.load_seconds:
        queries = load_queries(workload)
        load = take_load(side, [make_call(query) for query in queries], queries, arguments)
    else:
        times = {str(rows): time_calls(each, rows=rows, seconds=arguments.seconds) for rows, each in calls.items()}
    return CallResult(side=side, times=times, largest_difference=difference, versions=versions, load=load)


def take_load(
    side: str, calls: Sequence[Call], queries: Sequence[Query], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Offline, whose rate says where the search of the Server scenario begins, and that search."""
    pairs = sum(map(len, queries)) / len(queries)
    mean = time_calls(calls, rows=round(pairs), seconds=2).mean

    def run(scenario: str, rate: float, seconds: float) -> LoadResult:
        found = run_load(
            scenario,
            lambda index: calls[index](),
            len(calls),
            target_qps=rate,
            seconds=seconds,
            lanes=arguments.lanes,
        )
        verdict = "passes" if found.passes else "fails"
        print(
            f"{side}: {scenario} {rate:.0f}/s: {found.queries_per_second:.0f}/s, "
            f"p50 {found.p50 * 1e3:.1f} ms, p99 {found.p99 * 1e3:.1f} ms, {verdict}",
            file=sys.stderr,
            flush=True,
        )
        return found

    offline = run("Offline", 1 / mean, arguments.load_seconds)
    search = highest_passing_rate(
        lambda rate: run("Server", rate, arguments.load_seconds),
        first=FIRST_SHARE * offline.queries_per_second,
        tolerance=arguments.rate_tolerance,
    )
    best = search.best
    return {
        "pairs_per_query": pairs,
        "lanes": arguments.lanes,
        "offline": asdict(offline),
        "server": asdict(best[1]) if best else None,  # type: ignore[call-overload]
        "probes": [asdict(found) for _, found in search.probes],  # type: ignore[call-overload]
    }


def parse_arguments(description: str, kinds: Sequence[str], argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of a side's script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--folder", type=Path, required=True, help="that serving_export.py wrote")
    parser.add_argument("--threads", type=int, default=2, help="a call may use")
    parser.add_argument("--rows", type=int, nargs="+", choices=ROWS, default=list(ROWS), help="a call")
    parser.add_argument("--seconds", type=float, default=5.0, help="to time calls of one size for")
    parser.add_argument("--load-seconds", type=float, default=0.0, help="of each of the load generator's runs; 0: none")
    parser.add_argument("--lanes", type=int, default=2, help="queries scored at once under load")
    parser.add_argument("--rate-tolerance", type=float, default=0.05, help="of the search for the highest rate")
    return parser.parse_args(argv)


def run_side(description: str, kinds: Mapping[str, Callable[[Path, int], tuple[MakeCall, Mapping[str, str]]]]) -> None:
    """The program of a side.

    Args:
        description: of the script.
        kinds: name -> function of the folder and the threads a call may use, which gives the side's calls and the
            versions of what does the work.
    """
    arguments = parse_arguments(description, list(kinds))
    make_call, versions = kinds[arguments.kind](arguments.folder, arguments.threads)
    print(run_calls(arguments.kind, make_call, arguments, versions).to_line(), flush=True)
