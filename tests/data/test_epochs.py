"""ResumableInput under Keras: a run that begins at any batch of any epoch sees the batches of the whole run."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from tests.data.sample_rows import plain_columns
from tests.data.test_batches import ArrayBlocks
from tests.devices import two_devices
from tfdlrm.data import Dataset, InMemoryDataset, ResumableInput, StreamingDataset

NUM_ROWS, BATCH_SIZE, EPOCHS = 11, 4, 3
NUM_BATCHES = 3


class Recorder(keras.Model):
    """A model whose training step notes the rows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.top = keras.layers.Dense(1)
        self.rows: list[list[int]] = []

    def call(self, features: dict) -> tf.Tensor:
        return self.top(features["dense"])

    def train_step(self, data: tuple) -> dict:
        tf.py_function(lambda dense: self.rows.append(dense.numpy()[:, 0].astype(int).tolist()), [data[0]["dense"]], [])
        return super().train_step(data)


@pytest.fixture
def dataset() -> Dataset:
    return InMemoryDataset(*plain_columns(NUM_ROWS))


def _compiled(steps_per_execution: int = 1) -> Recorder:
    model = Recorder()
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    return model


def _fit(
    model: Recorder,
    dataset: Dataset,
    position: tuple[int, int],
    validation: tf.data.Dataset | None = None,
    **options: int,
) -> list[list[int]]:
    model.rows.clear()
    resumable = ResumableInput(dataset, BATCH_SIZE, shuffle=True, seed=5, position=position, **options)
    model.fit(
        resumable.dataset(),
        initial_epoch=position[0],
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[resumable.callback()],
        validation_data=validation,
    )
    return list(model.rows)


def _expected(dataset: Dataset, **options: int) -> list[list[int]]:
    return [
        features["dense"].numpy()[:, 0].astype(int).tolist()
        for epoch in range(EPOCHS)
        for features, _ in dataset.batches(BATCH_SIZE, shuffle=True, seed=5, epoch=epoch, **options)
    ]


def test_fit_resumes_at_every_batch(dataset: Dataset) -> None:
    model, expected = _compiled(), _expected(dataset)
    for number in range(EPOCHS * NUM_BATCHES):
        assert _fit(model, dataset, divmod(number, NUM_BATCHES)) == expected[number:]


def test_several_steps_an_execution(dataset: Dataset) -> None:
    model, expected = _compiled(steps_per_execution=2), _expected(dataset)
    for number in (0, 4, 5):
        assert _fit(model, dataset, divmod(number, NUM_BATCHES)) == expected[number:]


def test_validation_between_the_epochs_changes_nothing(dataset: Dataset) -> None:
    rows = _fit(_compiled(), dataset, (0, 1), dataset.batches(BATCH_SIZE))
    assert rows == _expected(dataset)[1:]


def test_a_stream_resumes_too() -> None:
    dataset = StreamingDataset(ArrayBlocks(*plain_columns(NUM_ROWS), block_rows=2))
    assert _fit(_compiled(), dataset, (1, 2)) == _expected(dataset)[NUM_BATCHES + 2 :]


def test_short_epochs(dataset: Dataset) -> None:
    model, expected = _compiled(), _expected(dataset, max_batches=2)
    assert len(expected) == 2 * EPOCHS
    assert _fit(model, dataset, (0, 0), batches_per_epoch=2) == expected
    assert _fit(model, dataset, (1, 1), batches_per_epoch=2) == expected[3:]


def test_the_end_of_an_epoch_is_the_beginning_of_the_next(dataset: Dataset) -> None:
    resumable = ResumableInput(dataset, BATCH_SIZE, position=(1, NUM_BATCHES))
    assert resumable.position == (2, 0)
    with pytest.raises(ValueError, match="start_batch=4 is not within the epoch of 3 batches"):
        resumable.position = (0, 4)


def test_an_epoch_begins_when_it_is_read_and_not_when_an_iterator_is_made(dataset: Dataset) -> None:
    resumable = ResumableInput(dataset, BATCH_SIZE, seed=5)
    batches = resumable.dataset()
    assert int(batches.cardinality()) == NUM_BATCHES
    iter(batches)
    iter(batches)
    assert resumable.position == (0, 0)
    rows = [f["dense"].numpy()[:, 0].astype(int).tolist() for _ in range(EPOCHS) for f, _ in batches]
    assert rows == _expected(dataset)
    resumable.position = (1, 1)
    assert [f["dense"].numpy()[:, 0].astype(int).tolist() for f, _ in batches] == rows[4:6]


def test_another_callback_may_still_stop_the_training(dataset: Dataset) -> None:
    class StopAtOnce(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            self.model.stop_training = True

    resumable = ResumableInput(dataset, BATCH_SIZE, position=(0, 2))
    model = _compiled()
    callbacks = [resumable.callback(), StopAtOnce()]
    model.fit(resumable.dataset(), epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)
    assert len(model.rows) == 1
    assert model.stop_training is True


def test_two_devices_share_the_batches_of_a_resumed_run(dataset: Dataset) -> None:
    """Under a strategy Keras reads one batch ahead, to build the model; the callback puts the position back."""
    strategy = two_devices()
    resumable = ResumableInput(dataset, BATCH_SIZE, seed=5, position=(1, 1))
    with strategy.scope():
        model = Recorder()
        model.compile("sgd", "mse")
    model.fit(
        resumable.dataset(),
        initial_epoch=1,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[resumable.callback()],
    )
    seen = [row for rows in model.rows for row in rows]
    expected = [row for rows in _expected(dataset)[NUM_BATCHES + 1 :] for row in rows]
    first = NUM_ROWS - BATCH_SIZE
    assert sorted(seen[:first]) == sorted(expected[:first])
    assert sorted(seen[first:]) == sorted(expected[first:])
