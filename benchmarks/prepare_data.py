"""Times `tfdlrm data prepare` on a generated Criteo file: rows a second, peak memory, the reference's code beside it.

    python benchmarks/prepare_data.py                                   # 5M rows, Criteo-Kaggle's cardinalities
    python benchmarks/prepare_data.py --rows 50000000 --memory 2GB
    python benchmarks/prepare_data.py --reference path/to/data_utils.py --reference-rows 100000

The file is written once, to build/benchmarks, by `tfdlrm data synth`. Preparing is the whole command in a process of
its own, start and imports included; its peak resident size is the operating system's count. The reference is
facebookresearch/dlrm's `data_utils.py`, which no package registry has: give the file's path. It is timed on the first
rows of the same file, fewer of them, because it takes so long; its rate does not depend on their number. It takes ids
modulo 2^31 - 1 there: NumPy 2 refuses the overflow of int32 that it relied on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import this_machine
from targets import Target
from turns import NUMBERS_DIR

ROOT = Path(__file__).resolve().parent.parent
GIGA = 1e9
REFERENCE = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("data_utils", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
start = time.perf_counter()
options = {"days": 7, "data_split": "train", "randomize": "none", "criteo_kaggle": True}
module.getCriteoAdData(sys.argv[2], "processed", 2**31 - 1, **options)
print("SECONDS", time.perf_counter() - start)
"""


def raw_file(rows: int, folder: Path) -> Path:
    """The generated file of so many rows, written where it is not there yet."""
    target = folder / f"criteo-raw-{rows}"
    done = target / "done"
    if not done.exists():
        shutil.rmtree(target, ignore_errors=True)
        command = [sys.executable, "-m", "tfdlrm", "data", "synth", str(target), "--preset", "criteo-kaggle"]
        subprocess.run([*command, "--rows", str(rows), "--missing", "0.1", "--quiet"], check=True, cwd=ROOT)
        done.touch()
    return next(path for path in target.iterdir() if path.suffix in (".tsv", ".txt"))


def timed_prepare(source: Path, memory: str | None, form: str, folder: Path) -> tuple[float, float]:
    """(seconds, peak resident bytes) of one preparation."""
    output = folder / "prepared"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "tfdlrm", "data", "prepare", str(source), str(output)]
    command += ["--format", "criteo-kaggle", "--output", form, "--quiet", *(["--memory", memory] if memory else [])]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    shutil.rmtree(output)
    return seconds, usage.ru_maxrss * 1024.0


def timed_reference(script: Path, source: Path, rows: int, folder: Path) -> float:
    """Rows a second of the reference's preprocessing on the first rows."""
    sample = folder / "train.txt"
    with source.open("rb") as whole, sample.open("wb") as part:
        part.writelines(itertools.islice(whole, rows))
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, str(script), str(sample)], capture_output=True, text=True, check=True
    )
    return rows / float(done.stdout.rsplit("SECONDS", 1)[1])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--memory", help="for --memory of the command")
    parser.add_argument("--output", default="arrow", choices=("arrow", "parquet", "tfrecord"), help="of the command")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reference", type=Path, metavar="FILE", help="the reference's data_utils.py")
    parser.add_argument("--reference-rows", type=int, default=50_000)
    parser.add_argument("--json", type=Path, default=NUMBERS_DIR / "prepare_data.json")
    arguments = parser.parse_args(argv)
    source = raw_file(arguments.rows, NUMBERS_DIR)
    print(f"machine: {this_machine()}")
    print(f"file: {source}, {arguments.rows:,} rows, {source.stat().st_size / 2**20:,.0f} MiB", flush=True)
    rates, peaks, references = [], [], []
    with tempfile.TemporaryDirectory(dir=NUMBERS_DIR) as scratch:
        for number in range(arguments.rounds):
            seconds, peak = timed_prepare(source, arguments.memory, arguments.output, Path(scratch))
            rates.append(arguments.rows / seconds)
            peaks.append(peak)
            print(
                f"round {number + 1}: {seconds:.1f} s, {rates[-1]:,.0f} rows/s, peak {peak / GIGA:.2f} GB", flush=True
            )
            if arguments.reference is not None:
                folder = Path(scratch) / f"reference-{number}"
                folder.mkdir()
                references.append(timed_reference(arguments.reference, source, arguments.reference_rows, folder))
                print(f"round {number + 1}: reference {references[-1]:,.0f} rows/s", flush=True)
    rate = statistics.median(rates)
    print(f"prepare: median {rate:,.0f} rows/s, best {max(rates):,.0f}; peak {max(peaks) / GIGA:.2f} GB")
    targets = []
    if arguments.memory is None:
        targets = [
            Target(name="rows a second", value=rate, at_least=500_000, unit=""),
            Target(name="peak resident size", value=max(peaks) / GIGA, at_most=4.0, unit=" GB"),
        ]
    if references:
        reference = statistics.median(references)
        print(f"reference: median {reference:,.0f} rows/s")
        targets.append(Target(name="rows a second over the reference's", value=rate / reference, at_least=50))
    else:
        print("reference: not run (give its data_utils.py by --reference)")
    for target in targets:
        print(f"- {target}")
    arguments.json.write_text(json.dumps({"rates": rates, "peaks": peaks, "references": references}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
