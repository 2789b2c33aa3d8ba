"""Two sides of `fit_from_files.py`: training from a Criteo file, and the bare step of the same model.

    python benchmarks/side_tfdlrm_files.py fit --batch-size 2048 --num-batches 200
    python benchmarks/side_tfdlrm_files.py bare --batch-size 2048 --num-batches 200

`fit` is what `tfdlrm train --data FILE` runs: `tfdlrm.training.run.train` with its metrics, progress and checkpoint
callbacks, rows shuffled anew each epoch; what it does between epochs is not timed. `bare` is the train function
without metrics on batches of that file held as tensors. Both have the vocabularies of the file.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import side_tfdlrm
import tensorflow as tf
from criteo_file import criteo_file
from measurement import SideResult, add_timing_arguments
from side_tfdlrm import FitTimer, measure_train_function, versions
from turns import NUMBERS_DIR
from workload import NUM_DENSE, Workload, add_workload_arguments, workload_from_arguments

from tfdlrm.config import DataConfig, DLRMConfig, ExperimentConfig, TrainConfig
from tfdlrm.data.opening import open_dataset
from tfdlrm.embeddings.optimizers import RowwiseAdagrad
from tfdlrm.losses import loss_from_config
from tfdlrm.training.build import build_model, steps_per_execution
from tfdlrm.training.dense_optimizers import dense_optimizer_from_config
from tfdlrm.training.run import train

MANY_EPOCHS = 10**6  # the timer ends training
BARE_BATCHES = 16


def experiment(workload: Workload, path: Path) -> ExperimentConfig:
    """The config that `tfdlrm train` would be given."""
    return ExperimentConfig(
        model=DLRMConfig(
            num_dense=NUM_DENSE,
            embedding_dim=workload.embedding_dim,
            bottom_mlp=workload.bottom_mlp,
            top_mlp=workload.top_mlp,
        ),
        train=TrainConfig(
            learning_rate=workload.learning_rate,
            row_optimizer=RowwiseAdagrad(),
            global_batch_size=workload.batch_size,
            epochs=MANY_EPOCHS,
            steps_per_execution="auto",
            monitor="auc",  # there is no validation part
        ),
        data=DataConfig(format="criteo", path=str(path)),
    )


def measure_fit_from_file(workload: Workload, config: ExperimentConfig, *, seconds: float) -> SideResult:
    """Times the steps of a training run that reads its rows from the file."""
    timer = FitTimer(seconds, steps_per_execution(config.train))
    with tempfile.TemporaryDirectory(dir=NUMBERS_DIR) as folder:
        train(config, Path(folder, "run"), callbacks=[timer])
    result = timer.timer.result("tfdlrm-files-fit", workload, loss=timer.last_logs["loss"], versions=versions())
    print(result.to_line(), flush=True)
    return result


def measure_bare_step(workload: Workload, config: ExperimentConfig, *, seconds: float) -> SideResult:
    """Times the train function of the same model, without metrics, on batches held as tensors."""
    data, options = open_dataset(config.data), config.train
    model = build_model(config, data.spec)
    steps = steps_per_execution(options)
    model.compile(
        optimizer=dense_optimizer_from_config(options),
        loss=loss_from_config(options.loss, options.loss_weights, options.probability_clamp),
        steps_per_execution=steps,
        jit_compile=False,
    )
    epoch = data.train.batches(workload.batch_size, shuffle=True, drop_remainder=True)
    batches = list(itertools.islice(epoch, BARE_BATCHES))
    stacked = tf.nest.map_structure(lambda *tensors: tf.stack(tensors), *batches)
    endless = tf.data.Dataset.from_tensor_slices(stacked).repeat()
    return measure_train_function("tfdlrm-files-bare", workload, model, endless, steps=steps, seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "bare"))
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    config = experiment(workload, criteo_file(workload, NUMBERS_DIR))
    side_tfdlrm.keras.utils.set_random_seed(0)
    run = measure_fit_from_file if arguments.what == "fit" else measure_bare_step
    run(workload, config, seconds=arguments.seconds)


if __name__ == "__main__":
    main()
