"""How long a training step waits for its input: the Criteo-Kaggle preset's model on prepared data, profiled.

    python benchmarks/input_wait.py                          # batch 2048 and 128, 2M rows
    python benchmarks/input_wait.py --batch-sizes 2048 --rows 5000000

What runs is `fit`'s own train function on `ResumableInput`, as `tfdlrm train` feeds it. The wait is the time inside
the op that takes the next batch from the input, `IteratorGetNext`, by the profiler's trace.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

from machine import this_machine
from profile_step import summarize
from read_prepared import prepared_folder
from step_trace import trace_steps
from targets import Target

from tfdlrm.config import DataConfig, apply_overrides, load_config
from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.opening import open_dataset
from tfdlrm.losses import loss_from_config
from tfdlrm.metrics.binned_auc import BinnedAUC
from tfdlrm.training.build import build_model
from tfdlrm.training.dense_optimizers import dense_optimizer_from_config

NEXT_BATCH = "IteratorGetNext"


def waiting_share(folder: Path, batch_size: int, steps: int) -> float:
    """Share of the step's time in which it waits; prints the profile."""
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
    model.make_train_function()
    trace = trace_steps(lambda _: model.train_function(batches), num_steps=steps, warmup_steps=20)
    waited = sum(op.seconds for op in trace.ops if op.op_type == NEXT_BATCH)
    print(f"batch {batch_size}:")
    print(summarize(trace, step_seconds=trace.wall_seconds / trace.num_steps, top=8))
    return waited / trace.wall_seconds


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2048, 128])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args(argv)
    print(f"machine: {this_machine()}")
    folder = prepared_folder(arguments.rows, "arrow")
    for batch_size in arguments.batch_sizes:
        share = waiting_share(folder, batch_size, arguments.steps)
        name = f"batch {batch_size}: share of the time that the step waits for input"
        print(f"- {Target(name=name, value=100 * share, at_most=3.0, unit=' %')}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
