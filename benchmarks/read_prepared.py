"""Times reading of prepared data: shuffled batches a second, beside `tf.data`'s parsing of the same rows in TFRecords.

    python benchmarks/read_prepared.py                       # 5M rows of Criteo-Kaggle's shape, batch 2048
    python benchmarks/read_prepared.py --rows 500000 --tfrecord-rows 500000

`prepared` is `tfdlrm.data.open(..., shuffle=True)`. `tfrecord` is TensorFlow's own pipeline at its best:
`TFRecordDataset`, a shuffle buffer of the same 262,144 rows, batches of serialized rows parsed at once by
`parse_example`, in parallel, with prefetch. Both are read to the end of the epoch, in turn, in one process; TFRecords
of fewer rows, because writing them takes so long; there must be several times as many as the shuffle buffer holds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf
from machine import this_machine
from prepare_data import ROOT, raw_file
from targets import Target
from turns import NUMBERS_DIR

import tfdlrm.data
from tfdlrm.data.prepared import prepared_dataset

SHUFFLED_ROWS = 2**18


def prepared_folder(rows: int, form: str) -> Path:
    """Prepared rows in files of one form, made where they are not there yet."""
    folder = NUMBERS_DIR / f"prepared-{rows}-{form}"
    if not (folder / "manifest.json").exists():
        source = raw_file(rows, NUMBERS_DIR)
        command = [sys.executable, "-m", "tfdlrm", "data", "prepare", str(source), str(folder)]
        subprocess.run([*command, "--format", "criteo-kaggle", "--output", form, "--quiet"], check=True, cwd=ROOT)
    return folder


def prepared_batches(folder: Path, batch_size: int) -> tf.data.Dataset:
    """This project's reader."""
    return tfdlrm.data.open(folder, batch_size, shuffle=True, seed=1)


def tfrecord_batches(folder: Path, batch_size: int, names: Sequence[str], num_dense: int) -> tf.data.Dataset:
    """TensorFlow's reader of serialized examples."""
    features = {
        name: tf.io.FixedLenFeature([], tf.float32 if place in range(1, num_dense + 1) else tf.int64)
        for place, name in enumerate(names)
    }
    files = sorted(str(path) for path in (folder / "train").iterdir())
    records = tf.data.TFRecordDataset(files, num_parallel_reads=2)
    batches = records.shuffle(SHUFFLED_ROWS).batch(batch_size)
    parse = lambda serialized: tf.io.parse_example(serialized, features)  # noqa: E731
    return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def rate(batches: tf.data.Dataset, rows: int) -> float:
    """Rows a second of one epoch, consumed in the graph as a training step does."""
    start = time.perf_counter()
    batches.reduce(tf.constant(0), lambda count, _: count + 1)
    return rows / (time.perf_counter() - start)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--tfrecord-rows", type=int, default=2_000_000)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    print(f"machine: {this_machine()}; tensorflow {tf.__version__}")
    sizes = {"arrow": arguments.rows, "tfrecord": arguments.tfrecord_rows}
    folders = {form: prepared_folder(rows, form) for form, rows in sizes.items()}
    spec = prepared_dataset(folders["arrow"]).spec
    # the training part of the same source of the same size
    sources = {"prepared": folders["arrow"], "tfrecord": prepared_folder(arguments.tfrecord_rows, "arrow")}
    rows = {name: prepared_dataset(folder).num_rows for name, folder in sources.items()}
    names = [*spec.labels, *(column.name for column in spec.dense), *spec.feature_names]
    sides = {
        "prepared": prepared_batches(folders["arrow"], arguments.batch_size),
        "tfrecord": tfrecord_batches(folders["tfrecord"], arguments.batch_size, names, spec.num_dense),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name, batches in sides.items():
            rates[name].append(rate(batches, rows[name]))
            print(f"round {number + 1}: {name} {rates[name][-1]:,.0f} rows/s", flush=True)
    ours, theirs = (statistics.median(rates[name]) for name in ("prepared", "tfrecord"))
    print(f"prepared {ours:,.0f} rows/s, tfrecord {theirs:,.0f} rows/s (medians of {arguments.rounds})")
    for target in (
        Target(name="rows a second, shuffled", value=ours, at_least=3e6, unit=""),
        Target(name="over tf.data's parsing of TFRecords", value=ours / theirs, at_least=10),
    ):
        print(f"- {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
