"""`tfdlrm data prepare`: raw files to the training format."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted
from tfdlrm.cli.quiet_start import import_tensorflow

if TYPE_CHECKING:
    from tfdlrm.data.prepare import Listener, PrepareConfig, PrepareResult
    from tfdlrm.data.prepare.config import PrepareSplit

FORMATS = ("criteo-kaggle", "criteo-terabyte", "avazu", "csv", "parquet", "arrow", "movielens")
SPLITS: tuple[PrepareSplit, ...] = ("none", "criteo-kaggle", "criteo-terabyte", "time", "time-column", "hash", "random")
# What the reference does with its two datasets; the others are split only if that is asked for.
_OWN_SPLIT: dict[str, PrepareSplit] = {
    "criteo-kaggle": "criteo-kaggle",
    "criteo-terabyte": "criteo-terabyte",
    "movielens": "time",
}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?)B?\s*", re.IGNORECASE)

_EPILOG = """\
  tfdlrm data prepare train.txt kaggle --format criteo-kaggle
  tfdlrm data prepare day_*.gz terabyte --format criteo-terabyte --id-modulo 40000000 --memory 16GB
  tfdlrm data prepare clicks.csv prepared --schema schema.yaml --split random
  tfdlrm data prepare clicks/ prepared --schema schema.yaml --split hash --split-column user --oov

A run that was stopped goes on when the same command is given again. Train on the result:
  tfdlrm train criteo-kaggle --data kaggle
"""


def add_command(parts: Any) -> None:
    """Adds `prepare`."""
    parser = parts.add_parser(
        "prepare",
        help="turn raw files into the training format",
        description="Parse raw files once, in bounded memory: vocabularies, splits, and files that training maps into "
        "memory. Rows read = written + quarantined + sampled out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", metavar="SRC", help="files (plain, gzip, Zstandard), folders or patterns")
    parser.add_argument("out", metavar="OUT", help="a new or empty folder")
    parser.add_argument("--format", choices=FORMATS, help="of the sources; default: by name and content of the first")
    parser.add_argument("--schema", metavar="FILE", help="schema.yaml; default: the format's, or the one beside SRC")
    parser.add_argument("--split", choices=SPLITS, help="default: the format's own, else none")
    parser.add_argument("--split-column", metavar="KEY", help="key column, for --split time-column and hash")
    parser.add_argument("--train-fraction", type=float, default=0.8, metavar="F", help="default: 0.8")
    parser.add_argument("--validation-fraction", type=float, default=0.1, metavar="F", help="default: 0.1")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random choices; default: 0")
    parser.add_argument(
        "--vocabulary",
        choices=("first-appearance", "frequency"),
        default="first-appearance",
        help="the order of ids; default: first-appearance",
    )
    parser.add_argument("--min-count", type=int, default=1, metavar="N", help="rarer values are out of vocabulary")
    parser.add_argument("--oov", action="store_true", help="give every vocabulary an out-of-vocabulary row")
    parser.add_argument("--vocabularies", metavar="DIR", help="prepared data or a model's folder whose ids to keep")
    parser.add_argument("--extend", action="store_true", help="new values get ids behind those of --vocabularies")
    parser.add_argument("--id-modulo", type=int, metavar="N", help="take integer and hex ids modulo N first")
    parser.add_argument("--keep-negatives", type=float, default=1.0, metavar="F", help="share of negatives trained on")
    parser.add_argument("--multi-hot", choices=("mlperf-dcnv2",), help="make MLPerf's bags of Criteo's ids")
    parser.add_argument("--output", choices=("arrow", "parquet", "tfrecord"), default="arrow", help="default: arrow")
    parser.add_argument("--memory", type=parse_size, metavar="SIZE", help="such as 2GB; default: half of the machine's")
    parser.add_argument(
        "--bad-rows", choices=("error", "quarantine"), default="error", help="stop, or set aside; default: error"
    )
    parser.add_argument("--restart", action="store_true", help="throw away what OUT holds of an earlier preparation")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    # only some preparations need it, and its import takes seconds
    parser.set_defaults(run=_run, needs_tensorflow=False)


def parse_size(text: str) -> int:
    """Bytes from `2GB`, `512MiB` or `1000000`.

    Raises:
        argparse.ArgumentTypeError: not a size.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a size. Write it as 2GB, 512MB or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def config_of(arguments: argparse.Namespace) -> PrepareConfig:
    """What the flags ask for."""
    from tfdlrm.data.prepare import PrepareConfig
    from tfdlrm.data.prepare.config import guess_raw_format
    from tfdlrm.schema import FeatureSpec

    schema = None if arguments.schema is None else FeatureSpec.load(arguments.schema)
    found = arguments.format or guess_raw_format(arguments.sources, schema)
    return PrepareConfig(
        format=found,
        schema=schema,
        split=arguments.split or _OWN_SPLIT.get(found, "none"),
        train_fraction=arguments.train_fraction,
        validation_fraction=arguments.validation_fraction,
        split_column=arguments.split_column,
        seed=arguments.seed,
        vocabulary_order=arguments.vocabulary,
        min_count=arguments.min_count,
        vocabularies=arguments.vocabularies,
        extend=arguments.extend,
        oov=arguments.oov,
        id_modulo=arguments.id_modulo,
        keep_negatives=arguments.keep_negatives,
        multi_hot=arguments.multi_hot,
        output=arguments.output,
    )


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.data.prepare import prepare, uses_tensorflow
    from tfdlrm.data.pyarrow_extra import pa

    start = time.perf_counter()
    config = config_of(arguments)
    if uses_tensorflow(config, arguments.sources):
        import_tensorflow()
    # Arrow's own allocator gives freed memory back, and the system clears each page of it anew: 8 % of the time
    pa.set_memory_pool(pa.system_memory_pool())
    with _progress(arguments.quiet) as listener:
        result = prepare(
            config,
            arguments.sources,
            arguments.out,
            memory=arguments.memory,
            bad_rows=arguments.bad_rows,
            restart=arguments.restart,
            command=["tfdlrm", *sys.argv[1:]],
            listener=listener,
        )
    _print(result, time.perf_counter() - start)
    if config.output == "tfrecord":
        return
    if "validation" in result.manifest["parts"]:
        print(f"next: tfdlrm train dlrm --data {shlex.quote(arguments.out)}")
    elif config.split == "none":
        print("note: no validation part, by which presets tell when to stop. --split random makes one, or time-column.")
    else:
        print("note: no row of these is in the validation part, by which presets tell when to stop. Give more rows.")


def _print(result: PrepareResult, seconds: float) -> None:
    books = result.books
    passes = ", ".join(f"{name} {taken:.1f} s" for name, taken in result.seconds.items())
    per_second = f"{books['read'] / max(seconds, 1e-9):,.0f} rows/s"
    rate = "" if result.resumed else f" in {seconds:.1f} s ({passes}), {per_second}"
    sampled = f" + {books['sampled_out']:,} sampled out" if books["sampled_out"] else ""
    print(
        f"{books['read']:,} rows read = {books['written']:,} written + {books['quarantined']:,} quarantined{sampled}"
        + rate
    )
    for part, entry in result.manifest["parts"].items():
        size = sum(file["bytes"] for file in entry["files"])
        print(f"{part}: {entry['rows']:,} rows, {len(entry['files'])} files, {size / 2**20:,.0f} MiB")
    for source in result.manifest["sources"]:
        for note in source["notes"]:
            print(f"note: {note}")
    if books["quarantined"]:
        print(f"quarantined rows: {Path(result.output) / 'quarantine.tsv'}")
    print(f"prepared data: {result.output}")


class _progress:
    """Progress bars on the error stream, where that is a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Listener | None:
        if not self._shown:
            return None
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bars.start()
        return _bars_listener(self._bars)

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._bars.stop()


def _bars_listener(bars: Any) -> Listener:
    from tfdlrm.data.prepare import Listener

    class Bars(Listener):
        """Shows one bar a pass."""

        def __init__(self) -> None:
            self._start = time.perf_counter()
            self._tasks: dict[str, Any] = {}

        def _task(self, name: str, total: int) -> Any:
            if name not in self._tasks:
                self._tasks[name] = bars.add_task(name, total=max(total, 1), detail="")
            return self._tasks[name]

        def parsed(self, num_bytes: int, num_rows: int, total_bytes: int) -> None:
            rate = num_rows / max(time.perf_counter() - self._start, 1e-9)
            detail = f"{num_rows:,} rows, {rate:,.0f} rows/s"
            bars.update(self._task("parse", total_bytes), completed=num_bytes, detail=detail)

        def fitted(self, table: str, num_tables: int) -> None:
            bars.update(self._task("vocabularies", num_tables), advance=1, detail=table)

        def written(self, num_rows: int, total_rows: int) -> None:
            bars.update(self._task("write", total_rows), advance=num_rows, detail=f"of {total_rows:,} rows")

    return Bars()
