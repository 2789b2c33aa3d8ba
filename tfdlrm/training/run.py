"""`train`: from a config to a trained model in a folder, and on from where it was interrupted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.config import ExperimentConfig
from tfdlrm.data.dataset import Books
from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.preprocessing import PREPROCESSING_FILE, Preprocessing
from tfdlrm.data.splits import Splits
from tfdlrm.distribute.dispatch import explaining
from tfdlrm.distribute.strategy import ParameterServerStrategy, strategy_of
from tfdlrm.models.base import tables_of, training_loop_of
from tfdlrm.stop_signals import StopSignals
from tfdlrm.training.background import background_of, save_background
from tfdlrm.training.build import build_model, first_logits, resolve_config
from tfdlrm.training.checkpoint_folder import write_file
from tfdlrm.training.checkpointing import Checkpointing
from tfdlrm.training.determinism import reproducible
from tfdlrm.training.epoch_end import BestEpoch, Validation, check_monitor
from tfdlrm.training.evaluation import check_group_by, evaluate_dataset
from tfdlrm.training.history import HistoryLog
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.model_state import metric_values
from tfdlrm.training.progress import Progress
from tfdlrm.training.resume import resume_run
from tfdlrm.training.run_state import RunState
from tfdlrm.training.step_counter import StepCounter
from tfdlrm.training.tensorboard_log import TensorBoardLog


@dataclass(frozen=True)
class TrainResult:
    """What `train` gives back.

    Args:
        model: with all numbers of the best epoch; of the last step, where training was interrupted or no epoch was
            the best.
        history: name -> one value an epoch, over all sessions of the run.
        best: step, epoch, monitored value and checkpoint path of the best epoch; None before the first.
        books: rows read = used + set aside.
        test: exact metrics of the test part under the best epoch; None without a test part, or when interrupted.
        interrupted_by: the signal that ended training early, or None.
    """

    model: keras.Model
    history: dict[str, list[float | None]]
    best: dict[str, Any] | None
    books: Books
    test: dict[str, float] | None
    interrupted_by: str | None = None


def train(
    config: ExperimentConfig,
    model_dir: str | Path,
    *,
    resume: bool = False,
    data: Splits | None = None,
    strategy: tf.distribute.Strategy | None = None,
    verbose: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult:
    """Trains a model with `fit`, checkpoints it, validates it every epoch and tests the best epoch.

    Every end of an epoch is a checkpoint, and so is every `checkpoint_every_steps`-th step or
    `checkpoint_every_minutes`. `resume=True` goes on from the newest one, in the middle of an epoch as well; with
    `train.deterministic` the result is then, bit for bit, that of a run which was never interrupted. SIGTERM and
    Ctrl-C write a checkpoint and stop.

    Args:
        config: model, training and data.
        model_dir: where everything goes; see `ModelDir`.
        resume: go on with the run in that folder.
        data: the rows, where they do not come from `config.data`.
        strategy: where the model is made; None for the one that `config.train.strategy` names, whose cluster TF_CONFIG
            tells.
        verbose: 0 shows nothing, 1 a progress bar.
        callbacks: further Keras callbacks. They see the validation metrics in `on_epoch_end`; what they hold is not in
            the checkpoints.

    Raises:
        FileExistsError: the folder holds another run and `resume` is False.
        FileNotFoundError: no run to resume; one that had no checkpoint yet begins anew.
        ValueError: config, data or checkpoint do not fit together; names what.
        TrainingDivergedError: the loss is no longer a number; names the step.
        OSError: a checkpoint cannot be written; the older ones are whole.

    Example:
        >>> result = train(load_config("quickstart"), "runs/quickstart")
        >>> result.best["value"], result.test["auc"]
    """
    directory = ModelDir(model_dir)
    options = config.train
    with directory.locked(), contextlib.ExitStack() as stack:
        if not resume and directory.checkpoints().names():
            raise FileExistsError(
                f"{directory.path}: there is a run with checkpoints here. Go on with it by --resume, or give another "
                "--model-dir."
            )
        if resume and directory.has_begun() and not directory.checkpoints().names():
            resume = False  # stopped before its first checkpoint: nothing is lost by beginning anew
            if verbose:
                print(f"{directory.path}: no checkpoint yet; the run begins anew")
        strategy = strategy or strategy_of(options)  # connects to its cluster, before anything is made
        stack.enter_context(reproducible(seed=options.seed, deterministic=options.deterministic))
        data = data or _open_data(config, directory, resume=resume)
        config = resolve_config(config, data.spec)
        _check_data(config, data)
        scope = contextlib.nullcontext if strategy is None else strategy.scope
        if isinstance(strategy, ParameterServerStrategy):
            stack.enter_context(explaining(strategy.cluster))  # of checkpoints too
        return _Run(config, directory, data, scope, resume=resume, verbose=verbose, callbacks=callbacks).run()


def _open_data(config: ExperimentConfig, directory: ModelDir, *, resume: bool) -> Splits:
    saved = directory.preprocessing if resume and (directory.preprocessing / PREPROCESSING_FILE).is_file() else None
    return open_dataset(
        config.data,
        bad_rows=config.train.bad_rows,
        quarantine_dir=directory.path,
        preprocessing=None if saved is None else Preprocessing.load(saved),
    )


def _check_data(config: ExperimentConfig, data: Splits) -> None:
    """What would fail only after the first epoch is refused before it."""
    for part in data.parts.values():
        check_group_by(part, config.train.group_by)


class _Run:
    """One session of training."""

    def __init__(
        self,
        config: ExperimentConfig,
        directory: ModelDir,
        data: Splits,
        scope: Callable[[], AbstractContextManager[Any]],
        *,
        resume: bool,
        verbose: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        self._config, self._directory, self._data = config, directory, data
        self._verbose, self._callbacks = verbose, list(callbacks)
        self._resumed = resume
        options = config.train
        if resume:
            with scope():
                self._model, self._state = resume_run(directory, config, data.spec)
            self._check_same_rows()
        else:
            bias = first_logits(options, data.train) if options.output_bias == "base_rate" else None
            with scope():
                self._model, self._state = build_model(config, data.spec, output_bias=bias), RunState(seed=options.seed)
        self._input = ResumableInput(
            data.train,
            options.global_batch_size,
            shuffle=options.shuffle,
            seed=options.seed,
            batches_per_epoch=options.steps_per_epoch,
        )
        self._state.rows = data.train.num_rows
        self._state.batches_per_epoch = self._input.num_batches
        self._state.books = asdict(data.books)
        check_monitor(
            options,
            data.spec.labels,
            list(self._model.get_metrics_result()),
            has_validation=data.validation is not None,
        )

    def _check_same_rows(self) -> None:
        before, now = self._state.rows, self._data.train.num_rows
        if before != now:
            raise ValueError(
                f"cannot resume: the training part has {now} rows, it had {before} when the run began. Give the same "
                "data, or train in another --model-dir."
            )

    def run(self) -> TrainResult:
        if self._resumed:
            # the rest is as it was; a process killed while writing it again would leave it torn
            write_file(self._directory.config_file, self._config.to_yaml())
            self._directory.save_best(self._state.best)
            if self._verbose:
                print(f"resuming at step {self._state.step}: epoch {self._state.epoch + 1}, batch {self._state.batch}")
        else:
            self._directory.save_config(self._config, self._data.spec, self._data.preprocessing)
            background = background_of(self._data.train, self._config.train.seed)
            save_background(self._directory.background_file, self._data.spec, background)
        if self._verbose and training_loop_of(self._model) is not None:
            for tables in tables_of(self._model):
                print(*tables.plan.reasons, sep="\n", flush=True)
        with StopSignals(_tell_stop) as signals:
            history = self._fit(signals)
        best = self._state.best
        test = None
        if signals.received is None:
            test = self._test()
        folder = self._directory.checkpoints_path
        plain = None if best is None else {**asdict(best), "path": str(folder / best.checkpoint)}
        return TrainResult(self._model, history.columns, plain, self._data.books, test, signals.received)

    def _fit(self, signals: StopSignals) -> HistoryLog:
        options, state, model = self._config.train, self._state, self._model
        best = BestEpoch(
            state, monitor=options.monitor, mode=options.monitor_mode, patience=options.early_stopping_patience
        )
        validation = Validation(
            state,
            self._data.validation,
            batch_size=options.global_batch_size,
            group_by=options.group_by,
            should_stop=lambda: signals.received is not None,
        )
        history = HistoryLog(self._directory.history_file, state)
        progress = Progress(state, epochs=options.epochs, batch_size=options.global_batch_size)
        metrics = metric_values(model) if state.batch else None
        ending = [validation, best, history, TensorBoardLog(self._directory.logs, state, validation)]
        shown = [progress] if self._verbose else []
        checkpointing = Checkpointing(state, self._directory, self._config, self._data.spec, signals)
        callbacks = [StepCounter(state, metrics), *ending, *shown, *self._callbacks, checkpointing]
        model.stop_training = False
        if state.batch and state.epoch_is_trained:
            # interrupted between the last batch and the end of the epoch
            _end_epoch(model, callbacks, state.epoch)
        if best.out_of_patience(state) or model.stop_training or state.epoch >= options.epochs:
            return history
        self._input.position = (state.epoch, state.batch)
        try:
            model.fit(
                self._input.dataset(),
                epochs=options.epochs,
                initial_epoch=state.epoch,
                shuffle=False,  # the input does that
                verbose=0,
                callbacks=[self._input.callback(), *callbacks],
            )
        finally:
            progress.close()
        return history

    def _test(self) -> dict[str, float] | None:
        best = self._state.best
        if best is not None and best.step != self._state.step:
            self._directory.checkpoints().restore(best.checkpoint, self._model)
        if self._data.test is None:
            return None
        options = self._config.train
        return evaluate_dataset(
            self._model, self._data.test, batch_size=options.global_batch_size, group_by=options.group_by
        )


def _tell_stop(name: str) -> None:
    text = f"{name}: writing a checkpoint after this step, then stopping. Once more stops at once."
    print(text, file=sys.stderr, flush=True)


def _end_epoch(model: keras.Model, callbacks: list[keras.callbacks.Callback], epoch: int) -> None:
    """The end of an epoch whose batches are behind: what `fit` would have done."""
    every = keras.callbacks.CallbackList(callbacks, model=model)
    every.on_train_begin()
    every.on_epoch_begin(epoch)
    every.on_epoch_end(epoch, model.get_metrics_result())
    every.on_train_end()
