"""What happens around the steps: divergence, validation, the best epoch, logs, progress, signals."""

from __future__ import annotations

import io
import math
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.training.small_run import SPEC, rows, small_config, small_splits
from tfdlrm.config import TrainConfig
from tfdlrm.metrics import evaluate_arrays
from tfdlrm.stop_signals import StopSignals
from tfdlrm.training.build import build_model
from tfdlrm.training.checkpoints import Checkpoints
from tfdlrm.training.epoch_end import BestEpoch, check_monitor
from tfdlrm.training.evaluation import Evaluator, evaluate_dataset, metric_names
from tfdlrm.training.history import HistoryLog
from tfdlrm.training.progress import Progress
from tfdlrm.training.run import train
from tfdlrm.training.run_state import RunState
from tfdlrm.training.step_counter import StepCounter, TrainingDivergedError


class OneWeight:
    """As much of a model as callbacks ask for."""

    stop_training = False
    trainable_weights: tuple[Any, ...] = ()
    optimizer = keras.optimizers.SGD(0.5)


def attached(callback: keras.callbacks.Callback) -> Any:
    callback.set_model(OneWeight())
    return callback


def test_steps_are_counted() -> None:
    state = RunState(step=100, epoch=2, batch=4, batches_per_epoch=10)
    counter = attached(StepCounter(state))
    counter.on_epoch_begin(2)
    counter.on_train_batch_end(2, {"loss": 1.0})  # an execution of three
    assert (state.step, state.epoch, state.batch) == (103, 2, 7)
    counter.on_train_batch_end(8, {"loss": 1.0})  # the last one is cut short by the end of the epoch
    assert (state.step, state.batch, state.epoch_is_trained) == (106, 10, True)
    counter.on_epoch_begin(3)
    assert (state.epoch, state.batch) == (3, 0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_training(loss: float) -> None:
    counter = attached(StepCounter(RunState(step=7, epoch=1, batch=2, batches_per_epoch=10)))
    counter.on_epoch_begin(1)
    with pytest.raises(
        TrainingDivergedError, match=rf"step 8 \(epoch 1, batch 3 of 10\): the loss is {loss}.*learning_rate"
    ):
        counter.on_train_batch_end(0, {"loss": loss})


def test_no_checkpoint_of_a_diverged_model(tmp_path: Path) -> None:
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 5:
                kernel = self.model.trainable_weights[0]
                kernel.assign(kernel * np.nan)

    with pytest.raises(TrainingDivergedError, match=r"step 6 .*'dlrm/bottom_mlp/dense_0/kernel' is no longer finite"):
        train(small_config(checkpoint_every_steps=3), tmp_path, data=small_splits(), verbose=0, callbacks=[Spoil()])
    assert Checkpoints(tmp_path / "checkpoints").names() == ["step-000000003"]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_epoch(mode: str) -> None:
    values = [0.5, math.nan, 0.7, 0.6, 0.7, 0.69]
    state = RunState()
    best = attached(BestEpoch(state, monitor="val_auc", mode=mode, patience=3))
    stopped_after, waits = None, []
    for epoch, value in enumerate(values if mode == "max" else [-v for v in values]):
        state.step, state.epoch, state.batch = 10 * (epoch + 1), epoch + 1, 0
        best.on_epoch_end(epoch, {"val_auc": value})
        waits.append(state.epochs_without_improvement)
        if best.model.stop_training and stopped_after is None:
            stopped_after = epoch
    assert waits == [0, 1, 0, 1, 2, 3]  # an equal value is no improvement, NaN never is
    assert stopped_after == 5
    assert state.best is not None
    assert (state.best.epoch, state.best.step, state.best.checkpoint) == (2, 30, "step-000000030")


def test_an_epoch_cut_short_is_not_judged() -> None:
    state = RunState(epoch=1, batch=4, batches_per_epoch=10)
    attached(BestEpoch(state, monitor="val_auc", mode="max", patience=None)).on_epoch_end(1, {})
    assert state.best is None


@pytest.mark.parametrize(
    ("train_config", "has_validation", "message"),
    [
        (TrainConfig(monitor="val_aux"), True, r"monitor='val_aux': there is no such metric, did you mean 'val_auc'\?"),
        (TrainConfig(monitor="val_gauc"), True, "There are: loss, auc, val_rows, .*val_log_loss"),
        (TrainConfig(), False, r"monitor='val_auc': the data has no validation part.*monitor one of: loss, auc\."),
    ],
)
def test_an_unknown_monitor(train_config: TrainConfig, has_validation: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_monitor(train_config, ("click",), ["loss", "auc"], has_validation=has_validation)
    check_monitor(replace(train_config, monitor="loss"), ("click",), ["loss", "auc"], has_validation=has_validation)


def test_a_bad_run_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such metric"):
        train(small_config(monitor="val_acu"), tmp_path, data=small_splits(), verbose=0)
    with pytest.raises(
        ValueError, match=r"group_by='session' is no key column of the data, whose keys are \['user', 'row"
    ):
        train(small_config(group_by="session"), tmp_path, data=small_splits(), verbose=0)
    assert not Checkpoints(tmp_path / "checkpoints").names()


def test_evaluation_is_exact_and_touches_nothing() -> None:
    model = build_model(small_config(), replace(SPEC, labels=("click", "buy")))
    dataset = rows(70, 5, replace(SPEC, labels=("click", "buy")))
    features, labels, keys = next(iter(dataset.batches(70, with_keys=True)))
    logits = model(features, training=False).numpy()
    model.compute_metrics(None, labels, logits)
    before = model.get_metrics_result()
    found = evaluate_dataset(model, dataset, batch_size=16, group_by="user")
    for task, name in enumerate(("click", "buy")):
        expected = evaluate_arrays(labels[:, task].numpy(), logits[:, task], keys["user"].numpy())
        for metric, value in expected.items():
            # the batch size decides the order in which a matrix product sums
            np.testing.assert_allclose(found[f"{name}_{metric}"], value, rtol=1e-6, err_msg=metric)
    assert model.get_metrics_result() == before
    assert list(found) == metric_names(("click", "buy"), "user")
    assert Evaluator(model, dataset, batch_size=16).metrics(should_stop=lambda: True) is None


def test_several_labels_and_groups(tmp_path: Path) -> None:
    spec = replace(SPEC, labels=("click", "buy"))
    config = small_config(
        epochs=1, group_by="user", monitor="val_buy_gauc", steps_per_execution="auto", deterministic=False
    )
    seen: dict[str, float] = {}
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update(logs))
    data = small_splits(spec=spec, test=True)
    result = train(config, tmp_path, data=data, verbose=0, callbacks=[look])
    assert result.best is not None
    assert result.best["value"] == seen["val_buy_gauc"]
    assert result.test == evaluate_dataset(result.model, data.test, batch_size=16, group_by="user")
    assert result.books == data.books


def test_without_validation(tmp_path: Path) -> None:
    config = small_config(epochs=2, monitor="loss", monitor_mode="min", steps_per_epoch=4, shuffle=False)
    result = train(config, tmp_path, data=small_splits(validation=False), verbose=0)
    assert result.history["step"] == [4, 8]
    assert result.best is not None
    assert result.best["value"] == min(result.history["loss"])
    assert result.test is None


def ended_epoch(state: RunState, epoch: int) -> None:
    state.step, state.epoch, state.batch = 10 * (epoch + 1), epoch + 1, 0


def test_the_history_has_a_line_an_epoch(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    state = RunState()
    log = attached(HistoryLog(file, state))
    for epoch in range(3):
        ended_epoch(state, epoch)
        log.on_epoch_end(epoch, {"loss": 0.1 + epoch / 3})
    state.epoch, state.batch = 3, 4
    log.on_epoch_end(3, {"loss": 9.0})  # cut short
    lines = file.read_text().splitlines()
    assert lines[0] == "epoch,step,learning_rate,loss"
    assert lines[1] == "0,10,0.5,0.1"
    assert len(lines) == 4
    # resumed in the epoch that was numbered 1: that one and the next are run again, with another metric beside
    state = RunState(epoch=1, batch=3)
    log = attached(HistoryLog(file, state))
    ended_epoch(state, 1)
    log.on_epoch_end(1, {"loss": 0.25, "val_auc": 0.75})
    assert file.read_text().splitlines() == [
        "epoch,step,learning_rate,loss,val_auc",
        "0,10,0.5,0.1,",
        "1,20,0.5,0.25,0.75",
    ]
    assert log.columns["val_auc"] == [None, 0.75]


def run_progress(stream: io.StringIO, seconds: float) -> str:
    state = RunState(batches_per_epoch=3, rows=40)
    progress = attached(Progress(state, epochs=2, batch_size=16, stream=stream, line_every_seconds=seconds))
    progress.on_epoch_begin(0)
    for batch in range(3):
        state.batch = batch + 1
        progress.on_train_batch_end(batch, {"loss": 0.5, "auc": 0.75})
    ended_epoch(state, 0)
    progress.on_epoch_end(0, {"loss": 0.5, "auc": 0.75, "val_auc": 0.625})
    state.epoch, state.batch = 1, 2
    progress.on_epoch_begin(1)
    progress.on_epoch_end(1, {})
    progress.on_train_end()
    return stream.getvalue()


def test_progress_in_lines() -> None:
    lines = run_progress(io.StringIO(), 0.0).splitlines()
    assert lines[0] == "epoch 1/2  step 1/3  0 samples/s  ? left  loss 0.5000  auc 0.7500"
    assert "samples/s" in lines[2]
    assert " left" in lines[2]
    assert lines[3].startswith("epoch 1/2  0:00:0")
    assert lines[3].endswith("samples/s  loss 0.50000  auc 0.75000  val_auc 0.62500")
    assert lines[4] == "epoch 2/2  stopped at step 2"


def test_an_epoch_of_one_execution_has_no_rate() -> None:
    """The first execution of an epoch is not measured: it may trace."""
    stream, state = io.StringIO(), RunState(batches_per_epoch=1, rows=16)
    progress = attached(Progress(state, epochs=1, batch_size=16, stream=stream, line_every_seconds=60.0))
    progress.on_epoch_begin(0)
    state.batch = 1
    progress.on_train_batch_end(0, {"loss": 0.5})
    ended_epoch(state, 0)
    progress.on_epoch_end(0, {"loss": 0.5})
    assert stream.getvalue().splitlines()[-1].endswith("  loss 0.50000")
    assert "0 samples/s" not in stream.getvalue().splitlines()[-1]


def test_progress_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = run_progress(Terminal(), 0.0)
    assert "3/3" in shown
    assert "val_auc 0.62500" in shown


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as a terminal has it: a process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_signals_are_noted_once() -> None:
    told: list[str] = []
    with StopSignals(told.append) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):  # the second one acts at once
            os.kill(os.getpid(), signal.SIGINT)
    assert told == ["SIGINT"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_take_no_signals() -> None:
    received: list[str | None] = []

    def in_thread() -> None:
        with StopSignals() as signals:
            received.append(signals.received)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert received == [None]
