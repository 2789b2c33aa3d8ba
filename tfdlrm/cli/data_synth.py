"""`tfdlrm data synth`: synthetic rows as raw files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted

if TYPE_CHECKING:
    from tfdlrm.config.data import SyntheticConfig
    from tfdlrm.data.synth.write import Progress

_EPILOG = """\
presets:
  tiny, small, medium, large, huge, colossal   from 10 thousand rows to 4.4 billion, MLPerf's tables cut to size
  criteo-kaggle, mlperf-dcnv2                  rows, tables and bags of the real data

  tfdlrm data synth rows --preset small --days 7 --drift 0.02 --file-per-day
  tfdlrm data synth rows --preset mlperf-dcnv2 --rows 1000000 --format parquet
"""

# flag -> field of SyntheticConfig; a flag that is not given leaves the preset's value
_FIELDS = {
    "rows": "num_rows",
    "exponent": "power_law_exponent",
    "hotness": "hotness",
    "hotness_distribution": "hotness_distribution",
    "correlation": "correlation",
    "missing": "missing_fraction",
    "days": "days",
    "drift": "drift",
    "cold": "cold_fraction",
    "seed": "seed",
}


def add_command(parts: Any) -> None:
    """Adds `synth`."""
    parser = parts.add_parser(
        "synth",
        help="write synthetic rows",
        description="Write synthetic rows as raw files, with the schema to read them by. The labels come from a "
        "planted teacher, so that the best possible scores are known; the same flags give the same bytes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="the folder to write to")
    parser.add_argument("--preset", default="small", metavar="NAME", help="size of rows and tables; default: small")
    parser.add_argument("--rows", type=int, metavar="N", help="rows; default: those of the preset")
    parser.add_argument(
        "--format", default="criteo", choices=("criteo", "csv", "parquet"), help="of the files; default: criteo"
    )
    parser.add_argument("--exponent", type=float, metavar="A", help="of the power law of ids; 0 is uniform")
    parser.add_argument("--hotness", type=parse_hotness, metavar="H", help="ids a bag: 3, or one a column: 3,2,1")
    parser.add_argument(
        "--hotness-distribution", choices=("fixed", "uniform", "geometric"), help="lengths of bags of 2 ids and more"
    )
    parser.add_argument("--correlation", type=float, metavar="X", help="fraction of ids that follow the column before")
    parser.add_argument("--missing", type=float, metavar="X", help="fraction of empty cells")
    parser.add_argument("--days", type=int, metavar="N", help="days of equal size")
    parser.add_argument("--drift", type=float, metavar="X", help="how far ids and labels move a day, in [0, 1]")
    parser.add_argument("--cold", type=float, metavar="X", help="fraction of a day's ids that are new on it")
    parser.add_argument("--seed", type=int, metavar="S", help="of everything; default: 0")
    parser.add_argument("--file-per-day", action="store_true", help="one file a day: day_0.tsv, day_1.tsv, ...")
    parser.add_argument("--compress", choices=("gz",), help="compress text files")
    parser.add_argument("--force", action="store_true", help="write although OUT has files; earlier rows are removed")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.set_defaults(run=_run)


def parse_hotness(text: str) -> int | tuple[int, ...]:
    """Hotness from `3` or `3,2,1`.

    Raises:
        argparse.ArgumentTypeError: neither a number nor a list of numbers.

    Example:
        >>> parse_hotness("3"), parse_hotness("3,2,1")
        (3, (3, 2, 1))
    """
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no hotness. Write it as 3, or one a column as 3,2,1"
        ) from error
    return numbers[0] if len(numbers) == 1 else numbers


def _config(arguments: argparse.Namespace) -> SyntheticConfig:
    from tfdlrm.data.synth.presets import synthetic_preset

    given = {field: getattr(arguments, flag) for flag, field in _FIELDS.items()}
    return synthetic_preset(arguments.preset).config(
        **{field: value for field, value in given.items() if value is not None}
    )


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.data.synth.write import write_synthetic

    config = _config(arguments)
    began = time.monotonic()
    with _progress(config.num_rows, arguments.quiet) as progress:
        written = write_synthetic(
            config,
            arguments.out,
            file_format=arguments.format,
            compression=arguments.compress or "none",
            file_per_day=arguments.file_per_day,
            replace=arguments.force,
            progress=progress,
        )
    seconds = time.monotonic() - began
    print(
        f"{written.num_rows:,} rows, {written.num_bytes / 2**20:,.1f} MiB in {seconds:.1f} s "
        f"({written.num_rows / seconds:,.0f} rows/s)"
    )
    if len(written.files) == 1:
        print(f"rows: {written.files[0]}")
    else:
        print(f"rows: {written.files[0]} to {written.files[-1].name}")
    print(f"schema: {written.schema}")


@contextmanager
def _progress(num_rows: int, quiet: bool) -> Iterator[Progress | None]:
    """A bar on a terminal; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=num_rows)
        yield lambda done: bar.update(task, completed=done)
