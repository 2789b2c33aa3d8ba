"""Compares embedding bags alone, without a model around them: the lookup, and lookup + backward + update.

    python benchmarks/embedding_bags.py                          # 8 tables x 1M x 64, 100 ids a bag, batch 2048
    python benchmarks/embedding_bags.py --hotness mlperf-dcnv2   # MLPerf DLRM-DCNv2's 26 tables and bags, D = 128
    python benchmarks/embedding_bags.py --tables 4 --rows 100000 --hotness 10 --embedding-dim 32 --batch-size 512

The first is the workload of the DLRM paper's profile. Ids are uniform, as MLPerf's generator of multi-hot ids draws
them. Every side runs in a process of its own, in turn. `*-stock` is the control: this project with
`TFDLRM_NATIVE=off`, on TensorFlow's own ops.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from comparison import Sitting
from sides import sides_of
from targets import Target
from turns import Case, add_turn_arguments, run_comparison
from workload import DEFAULTS, Workload

MLPERF_DCNV2 = "mlperf-dcnv2"
LOOKUP, UPDATE = "Lookup", "Lookup, backward and update"
FORWARD_TARGET, UPDATE_TARGET = 1.0, 1.8


def bag_workload(hotness: str, **given: int | None) -> Workload:
    """The tables and bags that the flags describe.

    Args:
        hotness: Ids a bag, or `mlperf-dcnv2`.
        given: `tables`, `rows`, `embedding_dim`, `batch_size`, `max_rows`; None for the default.

    Raises:
        ValueError: `tables` or `rows` beside `mlperf-dcnv2`, which has its own, or hotness is no number.
    """
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    tables, rows = fields.pop("tables", None), fields.pop("rows", None)
    base = DEFAULTS["bags"]
    if hotness == MLPERF_DCNV2:
        if tables is not None or rows is not None:
            raise ValueError(f"--hotness {MLPERF_DCNV2} has tables of its own: leave --tables and --rows out")
        return replace(DEFAULTS["dcnv2"], model="bags", num_batches=base.num_batches, **fields)
    if not hotness.isdigit():
        raise ValueError(f"--hotness {hotness!r}: give the ids a bag, or {MLPERF_DCNV2}")
    count = tables or base.num_features
    table_rows = (rows or base.table_rows[0],) * count
    return replace(base, table_rows=table_rows, hotness=(int(hotness),) * count, **fields)


def judged(sittings: Sequence[Sitting]) -> list[Target]:
    """The two targets, in the sittings of lookups and of updates."""
    lookups, updates = sittings
    return [
        updates.target(
            "forward + backward + update over fbgemm", "tfdlrm-update", "fbgemm-update", at_least=UPDATE_TARGET
        ),
        lookups.target("forward over torch EmbeddingBag", "tfdlrm-lookup", "torch-lookup", at_least=FORWARD_TARGET),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, help="default: 8")
    parser.add_argument("--rows", type=int, help="rows a table (default: 1,000,000)")
    parser.add_argument("--hotness", default="100", help=f"ids a bag, or {MLPERF_DCNV2}")
    parser.add_argument("--embedding-dim", type=int, help=f"default: 64; 128 for {MLPERF_DCNV2}")
    parser.add_argument("--batch-size", type=int, help="default: 2048")
    parser.add_argument("--max-rows", type=int, help=f"cap on rows a table (default: 300,000 for {MLPERF_DCNV2})")
    parser.add_argument("--sides", nargs="+", metavar="SIDE", choices=sides_of("bags"), default=sides_of("bags"))
    add_turn_arguments(parser, "embedding_bags")
    arguments = parser.parse_args(argv)
    given = ("tables", "rows", "embedding_dim", "batch_size", "max_rows")
    try:
        workload = bag_workload(arguments.hotness, **{name: getattr(arguments, name) for name in given})
    except ValueError as error:
        parser.error(str(error))
    cases = [
        Case(title=title, workload=workload, sides=tuple(name for name in arguments.sides if part in name))
        for title, part in ((LOOKUP, "-lookup"), (UPDATE, "-update"))
    ]
    return run_comparison("Embedding bags", cases, arguments, targets=judged)


if __name__ == "__main__":
    raise SystemExit(main())
