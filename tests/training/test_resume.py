"""Interrupted and resumed, a run ends with the same bits as one that was left alone."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.training.small_run import (
    SPEC,
    StopAfter,
    assert_identical,
    numbers,
    rows,
    saved_numbers,
    small_config,
    small_splits,
    with_model,
)
from tfdlrm.config import ExperimentConfig
from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
from tfdlrm.schema import DenseColumn
from tfdlrm.training.checkpoints import Checkpoints
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run import TrainResult, train


def run(config: ExperimentConfig, folder: Path, **options: Any) -> TrainResult:
    options.setdefault("data", small_splits())
    return train(config, folder, verbose=0, **options)


def interrupted(config: ExperimentConfig, folder: Path, steps: int, **options: Any) -> None:
    """Trains until the callback after so many executions of this session, then dies."""
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, callbacks=[StopAfter(steps)], **options)


PLAIN = small_config(checkpoint_every_steps=3)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, run(PLAIN, folder)


def assert_same_run(folder: Path, result: TrainResult, expected: tuple[Path, TrainResult]) -> None:
    assert saved_numbers(folder) == saved_numbers(expected[0])
    assert_identical(numbers(result.model), numbers(expected[1].model))
    assert result.history == expected[1].history
    assert (folder / "history.csv").read_text() == (expected[0] / "history.csv").read_text()
    assert result.best is not None
    assert expected[1].best is not None
    assert {**result.best, "path": ""} == {**expected[1].best, "path": ""}


def test_interrupted_again_and_again(tmp_path: Path, uninterrupted: tuple[Path, TrainResult]) -> None:
    interrupted(PLAIN, tmp_path, 10)  # after the last batch of the first epoch, before it is validated
    interrupted(PLAIN, tmp_path, 1, resume=True)  # in the first epoch still, and nothing done anew
    interrupted(small_config(checkpoint_every_steps=2), tmp_path, 9, resume=True)  # in the second
    assert_same_run(tmp_path, run(PLAIN, tmp_path, resume=True), uninterrupted)


def test_every_way_of_stepping(tmp_path: Path) -> None:
    """Updates of two steps, executions of three, a scaled loss, a clipped norm: nothing is lost or done twice."""
    config = small_config(
        optimizer="adam",
        learning_rate=0.01,
        gradient_accumulation_steps=2,
        steps_per_execution=3,
        precision="mixed_float16",
        global_clipnorm=0.5,
        checkpoint_every_steps=1,
        epochs=2,
    )
    expected = tmp_path / "whole", run(config, tmp_path / "whole")
    interrupted(config, tmp_path / "parts", 7)
    # executions end at 3, 6, 9, 10, 13, 16 and 19; of those, the odd ones are in the middle of an update
    assert Checkpoints(tmp_path / "parts" / "checkpoints").names() == [
        "step-000000006",
        "step-000000010",
        "step-000000016",
    ]
    assert_same_run(tmp_path / "parts", run(config, tmp_path / "parts", resume=True), expected)


class SignalAfter(keras.callbacks.Callback):
    def __init__(self, number: int, batch: int) -> None:
        super().__init__()
        self._number, self._batch = number, batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self._batch:
            os.kill(os.getpid(), self._number)


def test_signals_checkpoint_and_stop(
    tmp_path: Path, uninterrupted: tuple[Path, TrainResult], capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = run(small_config(), tmp_path, callbacks=[SignalAfter(signal.SIGTERM, 4)])
    assert result.interrupted_by == "SIGTERM"
    assert "SIGTERM: writing a checkpoint after this step" in capsys.readouterr().err
    assert (result.best, result.test, result.history) == (None, None, {})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.names() == ["step-000000005"]
    assert signal.getsignal(signal.SIGTERM) is before
    # at the last batch of the epoch: its validation is left to the next session
    result = run(PLAIN, tmp_path, resume=True, callbacks=[SignalAfter(signal.SIGINT, 4)])
    assert result.interrupted_by == "SIGINT"
    state = checkpoints.read_state("step-000000010")
    assert (state.epoch, state.batch, state.best) == (0, 10, None)
    assert_same_run(tmp_path, run(PLAIN, tmp_path, resume=True), uninterrupted)


def test_more_epochs_go_on_from_the_end(tmp_path: Path, uninterrupted: tuple[Path, TrainResult]) -> None:
    run(small_config(epochs=2), tmp_path)
    assert_same_run(tmp_path, run(PLAIN, tmp_path, resume=True), uninterrupted)


def test_early_stopping(tmp_path: Path) -> None:
    config = with_model(small_config(learning_rate=0.0, epochs=9, early_stopping_patience=2), normalization=None)
    result = run(config, tmp_path)
    assert result.history["epoch"] == [0, 1, 2]
    assert result.best is not None
    assert result.best["epoch"] == 0
    assert_identical(numbers(result.model), numbers(ModelDir(tmp_path).load_model("best")[0]))
    (tmp_path / "best.json").unlink()  # as if killed just before it was written
    again = run(config, tmp_path, resume=True)  # nothing left to do
    assert ModelDir(tmp_path).checkpoint_name("best") == result.best["checkpoint"]
    assert again.history == result.history
    assert again.best == result.best


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, uninterrupted: tuple[Path, TrainResult]) -> None:
    interrupted(PLAIN, tmp_path, 17)
    folder = tmp_path / "checkpoints"
    assert Checkpoints(folder).names() == ["step-000000010", "step-000000012", "step-000000015"]
    truncated = folder / "step-000000015" / "variables.npz"
    truncated.write_bytes(truncated.read_bytes()[:-9])
    changed = next((folder / "step-000000012").glob("tables.data-*"))  # found only when rows are read
    whole = changed.read_bytes()
    changed.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.warns(UserWarning, match="is damaged") as warned:
        result = run(PLAIN, tmp_path, resume=True)
    messages = [str(w.message) for w in warned]
    assert "step-000000015 is damaged" in messages[0]
    assert "variables.npz" in messages[0]
    assert "Going back to step-000000012" in messages[0]
    assert "step-000000012 is damaged" in messages[1]
    assert (folder / "damaged-step-000000015").is_dir()
    assert_same_run(tmp_path, result, uninterrupted)


def test_all_damaged_is_an_error(tmp_path: Path, uninterrupted: tuple[Path, TrainResult]) -> None:
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    for manifest in tmp_path.glob("run/checkpoints/*/manifest.json"):
        manifest.write_text("{")
    with (
        pytest.warns(UserWarning, match="is damaged") as warned,
        pytest.raises(DamagedCheckpointError, match="every checkpoint"),
    ):
        run(PLAIN, tmp_path / "run", resume=True)
    assert "There is no older one" in str(warned[-1].message)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(PLAIN, tmp_path / "whole")
    began = tmp_path / "began"
    began.mkdir()
    for file in ("config.yaml", "schema.yaml"):
        (began / file).write_bytes((tmp_path / "whole" / file).read_bytes())
    capsys.readouterr()
    again = train(PLAIN, began, data=small_splits(), resume=True, verbose=1)
    assert f"{began}: no checkpoint yet; the run begins anew" in capsys.readouterr().out
    assert again.best["value"] == expected.best["value"]
    (tmp_path / "damaged" / "checkpoints" / "damaged-step-5").mkdir(parents=True)
    (tmp_path / "damaged" / "config.yaml").write_bytes((began / "config.yaml").read_bytes())
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        run(PLAIN, tmp_path / "damaged", resume=True)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        run(PLAIN, tmp_path, resume=True)


def test_a_run_is_not_overwritten(tmp_path: Path, uninterrupted: tuple[Path, TrainResult]) -> None:
    with pytest.raises(FileExistsError, match="--resume"):
        run(PLAIN, uninterrupted[0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small_config(global_batch_size=8), r"train\.global_batch_size: was 16, now 8"),
        (small_config(learning_rate=0.2), r"train\.learning_rate: was 0\.1, now 0\.2"),
        (small_config(seed=1), r"train\.seed: was 0, now 1"),
        (
            with_model(small_config(), embedding_dim=8, bottom_mlp=(8, 8)),
            r"model\.embedding_dim: was 4, now 8; model\.bottom_mlp: was \[8, 4\], now \[8, 8\]",
        ),
    ],
)
def test_another_config_is_refused_by_key(
    uninterrupted: tuple[Path, TrainResult], config: ExperimentConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(config, uninterrupted[0], resume=True)


def test_another_schema_is_refused_by_key(uninterrupted: tuple[Path, TrainResult]) -> None:
    spec = SPEC.with_vocabulary_sizes({"item": 41})
    with pytest.raises(ValueError, match=r"model\.tables\.item\.vocabulary_size: was 40, now 41"):
        run(PLAIN, uninterrupted[0], resume=True, data=small_splits(spec=spec))
    spec = replace(SPEC, dense=(DenseColumn(name="age"), DenseColumn(name="cost")))
    with pytest.raises(ValueError, match=r"schema\.dense\.price\.name: was 'price', now 'absent'"):
        run(PLAIN, uninterrupted[0], resume=True, data=small_splits(spec=spec))


def test_other_rows_are_refused(uninterrupted: tuple[Path, TrainResult]) -> None:
    with pytest.raises(ValueError, match="training part has 149 rows, it had 150"):
        run(PLAIN, uninterrupted[0], resume=True, data=replace(small_splits(), train=rows(149, 1)))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with ModelDir(tmp_path).locked(), pytest.raises(RuntimeError, match="another process"):
        run(small_config(), tmp_path)
