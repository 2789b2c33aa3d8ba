"""How long a training step waits for its input: the Criteo-Kaggle preset's model on prepared data.

    python benchmarks/input_wait.py                          # batch 2048 and 128, 2M rows
    python benchmarks/input_wait.py --batch-sizes 2048 --rows 5000000

What runs is `fit`'s own train function on batches of `ResumableInput`, as `tfdlrm train` feeds it, one step a call. The
wait is the time that taking the next batch takes, beyond what taking one batch that is always there takes (28 tensors
come out of TensorFlow's runtime into Python either way; `fit` with several steps a call has neither).
`--slow-input MS` delays every batch by so much, to see that the number moves.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf
from machine import this_machine
from read_prepared import prepared_folder
from targets import Target

from tfdlrm.config import DataConfig, apply_overrides, load_config
from tfdlrm.data.dataset import PREFETCH_BATCHES
from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.opening import open_dataset
from tfdlrm.losses import loss_from_config
from tfdlrm.metrics.binned_auc import BinnedAUC
from tfdlrm.training.build import build_model
from tfdlrm.training.dense_optimizers import dense_optimizer_from_config

WARMUP_STEPS = 30


def waiting_share(folder: Path, batch_size: int, steps: int, slow_seconds: float = 0.0) -> float:
    """Share of the time of many steps in which the next batch is waited for."""
    config = apply_overrides(load_config("criteo-kaggle"), [f"train.global_batch_size={batch_size}"])
    data = open_dataset(DataConfig(format="prepared", path=str(folder)))
    model = build_model(config, data.spec)
    model.compile(
        optimizer=dense_optimizer_from_config(config.train),
        loss=loss_from_config(config.train.loss, config.train.loss_weights, config.train.probability_clamp),
        metrics=[BinnedAUC(name="auc")],
        steps_per_execution=1,
        jit_compile=False,
    )
    batches = iter(ResumableInput(data.train, batch_size, shuffle=True).dataset())
    always_there = iter(tf.data.Dataset.from_tensors(next(batches)).repeat().prefetch(PREFETCH_BATCHES))
    model.make_train_function()
    seconds = {"input": 0.0, "always there": 0.0, "step": 0.0}
    for number in range(WARMUP_STEPS + steps):
        if number == WARMUP_STEPS:
            seconds = dict.fromkeys(seconds, 0.0)
        for name, source in (("always there", always_there), ("input", batches)):
            asked = time.perf_counter()
            batch = next(source)
            if name == "input":
                time.sleep(slow_seconds)
            seconds[name] += time.perf_counter() - asked
        begun = time.perf_counter()
        logs = model.train_function(iter((batch,)))
        float(logs["loss"])  # the step is over
        seconds["step"] += time.perf_counter() - begun
    parts = ", ".join(f"{name} {1e3 * spent / steps:.3f}" for name, spent in seconds.items())
    print(f"batch {batch_size}, ms a step: {parts}")
    return max(0.0, seconds["input"] - seconds["always there"]) / (seconds["input"] + seconds["step"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2048, 128])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--slow-input", type=float, default=0.0, metavar="MS", help="delay every batch")
    arguments = parser.parse_args(argv)
    print(f"machine: {this_machine()}")
    folder = prepared_folder(arguments.rows, "arrow")
    for batch_size in arguments.batch_sizes:
        share = waiting_share(folder, batch_size, arguments.steps, arguments.slow_input / 1e3)
        name = f"batch {batch_size}: share of the time that the step waits for input"
        print(f"- {Target(name=name, value=100 * share, at_most=3.0, unit=' %')}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
