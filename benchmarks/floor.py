"""The least time a training step can take on this machine, and how far the measured step is from it.

    python benchmarks/floor.py                              # DLRM, batch 128 and 2048
    python benchmarks/floor.py --model dcnv2 --sides tfdlrm-rowwise_adagrad fbgemm

The floor is a sum, because its two parts want the same cores:

    floating-point operations of forward and backward pass / best rate of large float32 matrix products
    bytes of rows and slots that a step reads and writes   / best rate of reading random rows of a table of that size

Both parts are sides of the sitting, run in turn with the step (`side_floor.py`). Left out are activations, biases,
losses, the sorting of ids and whatever a framework does around its kernels, and a product of the step's own sizes is
slower than a large one: no step reaches the floor.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from comparison import SideSummary, Sitting
from sides import SIDES
from step_work import StepWork, step_work
from turns import Case, add_turn_arguments, run_comparison
from workload import DEFAULTS

BATCH_SIZES = {"dlrm": (128, 2048), "dcnv2": (2048,)}
PRODUCTS = ("floor-products-tensorflow", "floor-products-numpy")
ROWS = ("floor-rows-tfdlrm", "floor-rows-numpy")
DEFAULT_SIDES = ("tfdlrm-rowwise_adagrad", "fbgemm")
GIGA, MEGA = 1e9, 1e6


def faster(sitting: Sitting, names: Sequence[str]) -> SideSummary | None:
    """The side of `names` with the shortest median; None where none of them ran."""
    found = [summary for summary in sitting.summaries if summary.side in names]
    return min(found, key=lambda summary: summary.median_seconds, default=None)


def floor_lines(work: StepWork, sitting: Sitting) -> list[str]:
    """The floor of one workload and each step's distance to it, as Markdown."""
    products, rows = faster(sitting, PRODUCTS), faster(sitting, ROWS)
    heading = f"Floor at batch {sitting.workload['batch_size']}"
    if products is None or rows is None:
        return ["", f"{heading}: not known, because its parts did not run."]
    floor, best = products.median_seconds + rows.median_seconds, products.best_seconds + rows.best_seconds
    flop_rate, byte_rate = work.flops / products.median_seconds, work.row_bytes / rows.median_seconds
    moved = (
        f"{work.read_bytes / MEGA:,.1f} MB of rows read, {work.update_bytes / MEGA:,.1f} MB of rows and slots updated"
    )
    lines = [
        "",
        f"{heading}:",
        "",
        "| part of a step | amount | rate, median | median ms | best ms |",
        "|---|--:|--:|--:|--:|",
        f"| matrix products, forward and backward ({products.side}) | {work.flops / GIGA:,.2f} GFLOP "
        f"| {flop_rate / GIGA:,.0f} GFLOP/s | {_milliseconds(products)} |",
        f"| {moved} ({rows.side}) | {work.row_bytes / MEGA:,.1f} MB "
        f"| {byte_rate / GIGA:,.2f} GB/s | {_milliseconds(rows)} |",
        f"| **floor** | | | **{floor * 1e3:.2f}** | **{best * 1e3:.2f}** |",
        "",
    ]
    for summary in sitting.summaries:
        if summary.side in (*PRODUCTS, *ROWS):
            continue
        spoiled = [name for name in (products.side, rows.side, summary.side) if name in sitting.disturbed]
        distance = (
            f"not judged ({', '.join(spoiled)} disturbed)"
            if spoiled
            else f"{summary.median_seconds / floor:.2f}× the floor by medians, "
            f"{summary.best_seconds / best:.2f}× by the best"
        )
        lines.append(f"- {summary.side}: {summary.median_seconds * 1e3:.2f} ms a step, {distance}")
    return lines


def _milliseconds(summary: SideSummary) -> str:
    return f"{summary.median_seconds * 1e3:.2f} | {summary.best_seconds * 1e3:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(BATCH_SIZES), default="dlrm")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 128 and 2048; 2048 for dcnv2")
    parser.add_argument("--embedding-dim", type=int, help="default: 16; 128 for dcnv2")
    parser.add_argument("--max-rows", type=int, help="cap on rows a table")
    parser.add_argument("--sides", nargs="+", metavar="SIDE", choices=list(SIDES), default=DEFAULT_SIDES)
    add_turn_arguments(parser, "floor")
    arguments = parser.parse_args(argv)
    base = DEFAULTS[arguments.model]
    base = replace(
        base,
        embedding_dim=arguments.embedding_dim or base.embedding_dim,
        max_rows=arguments.max_rows or base.max_rows,
    )
    workloads = [replace(base, batch_size=size) for size in arguments.batch_sizes or BATCH_SIZES[arguments.model]]
    sides = (*PRODUCTS, *ROWS, *arguments.sides)
    cases = [Case(title="Floor and step", workload=workload, sides=sides) for workload in workloads]

    def notes(sittings: Sequence[Sitting]) -> list[str]:
        pairs = zip(workloads, sittings, strict=True)
        return [line for workload, sitting in pairs for line in floor_lines(step_work(workload), sitting)]

    return run_comparison("Floor of the training step", cases, arguments, notes=notes)


if __name__ == "__main__":
    raise SystemExit(main())
