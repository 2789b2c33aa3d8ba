"""What `train.deterministic` costs: training with it and without, in turns, and the ratio.

    python benchmarks/deterministic_mode.py --batch-sizes 128 2048 --rounds 3

Every measurement is a process of its own, because TensorFlow keeps kernels that it made in the other mode. What is
timed is `fit` on rows in memory, shuffled anew each epoch, as `tfdlrm train` runs it: the step and its input.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import this_machine
from workload import CRITEO_KAGGLE_ROWS

NUM_ROWS = 2**17  # 40 MB of columns; an epoch of 64 steps at batch 2048
MAX_TABLE_ROWS = 500_000  # keeps start-up short; the step does not depend on it
MODES = {"default": False, "deterministic": True}
RESULT = "samples/s"


def measure(batch_size: int, deterministic: bool, seconds: float) -> float:
    """Samples a second of `fit`, its first epoch left out."""
    import keras

    from tfdlrm.config import DataConfig, DLRMConfig, ExperimentConfig, SyntheticConfig, TrainConfig
    from tfdlrm.data.columns import concatenate
    from tfdlrm.data.dataset import InMemoryDataset
    from tfdlrm.data.epochs import ResumableInput
    from tfdlrm.data.synthetic import SyntheticRows
    from tfdlrm.training.build import build_model
    from tfdlrm.training.determinism import reproducible

    sizes = tuple(min(size, MAX_TABLE_ROWS) for size in CRITEO_KAGGLE_ROWS)
    rows = SyntheticRows(SyntheticConfig(num_rows=NUM_ROWS, vocabulary_sizes=sizes))
    blocks = [rows.read_block(block) for block in range(-(-NUM_ROWS // rows.block_rows))]
    dataset = InMemoryDataset(rows.spec, concatenate(blocks))
    config = ExperimentConfig(
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(512, 256, 64, 16), top_mlp=(512, 256, 1)),
        train=TrainConfig(global_batch_size=batch_size, deterministic=deterministic),
        data=DataConfig(),
    )

    class Laps(keras.callbacks.Callback):
        """Counts steps from the end of the first epoch on, and ends training when the time is up."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = 0
            self.began = self.ended = 0.0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.began = self.began or time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.began:
                self.steps += 1
                self.ended = time.perf_counter()
                self.model.stop_training = self.ended - self.began > seconds

    with reproducible(seed=0, deterministic=deterministic):
        model = build_model(config, rows.spec)
        steps = max(1, min(64, NUM_ROWS // batch_size))
        batches = ResumableInput(dataset, batch_size, batches_per_epoch=steps)
        laps = Laps()
        callbacks = [batches.callback(), laps]
        model.fit(batches.dataset(), epochs=10**6, shuffle=False, verbose=0, callbacks=callbacks)
    return laps.steps * batch_size / (laps.ended - laps.began)


def measure_in_process(batch_size: int, mode: str, seconds: float) -> float:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", mode, "--batch-sizes", str(batch_size), "--seconds", str(seconds)]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.endswith(RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(lines[-1].removesuffix(RESULT))


def main() -> None:
    """Prints samples a second of both modes and their ratio, for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--rounds", type=int, default=3, help="times that each mode is measured, in turns")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--one", choices=list(MODES), help="measure one mode here and now")
    options = parser.parse_args()
    if options.one:
        for batch_size in options.batch_sizes:
            print(f"{measure(batch_size, MODES[options.one], options.seconds):.0f} {RESULT}")
        return
    print(this_machine())
    for batch_size in options.batch_sizes:
        found: dict[str, list[float]] = {mode: [] for mode in MODES}
        for _ in range(options.rounds):
            for mode in MODES:
                found[mode].append(measure_in_process(batch_size, mode, options.seconds))
        medians = {mode: statistics.median(values) for mode, values in found.items()}
        listed = "; ".join(
            f"{mode} {medians[mode]:,.0f} {RESULT} ({min(values):,.0f} to {max(values):,.0f})"
            for mode, values in found.items()
        )
        ratio = medians["deterministic"] / medians["default"]
        print(f"batch {batch_size}: {listed}; deterministic / default = {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
