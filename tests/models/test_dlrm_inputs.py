"""What a DLRM begins with, and dense values that are no numbers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_dlrm import batch, compiled, small_config
from tfdlrm import losses
from tfdlrm.config import TrainConfig
from tfdlrm.data.dataset import Dataset
from tfdlrm.models import DLRM
from tfdlrm.training.build import first_logits


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", ["call", "fit", "evaluate", "predict", "eager"])
def test_a_dense_value_that_is_no_number_is_refused_by_column_and_row(value, how) -> None:
    model = compiled(small_config(), run_eagerly=how == "eager")
    x, y = batch(8)
    x["dense"][5, 1] = value
    calls = {
        "call": lambda: model(x),
        "fit": lambda: model.fit(x, y, batch_size=8, shuffle=False, verbose=0),
        "eager": lambda: model.fit(x, y, batch_size=8, shuffle=False, verbose=0),
        "evaluate": lambda: model.evaluate(x, y, batch_size=8, verbose=0),
        "predict": lambda: model.predict(x, batch_size=8, verbose=0),
    }
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"dense column 1 of row 5 of the batch is {value}"):
        calls[how]()


@pytest.mark.parametrize("how", ["call", "fit", "predict"])
def test_inputs_of_another_form_are_refused_by_name(how) -> None:
    x, y = batch(8)
    columns = x["dense"].shape[1]

    def use(inputs):
        model = compiled(small_config())
        calls = {
            "call": lambda: model(inputs),
            "fit": lambda: model.fit(inputs, y, batch_size=8, verbose=0),
            "predict": lambda: model.predict(inputs, verbose=0),
        }
        calls[how]()

    with pytest.raises(ValueError, match=rf"'dense' has shape \[.*{columns + 1}\].*num_dense={columns}"):
        use({**x, "dense": np.zeros((8, columns + 1), np.float32)})
    with pytest.raises(ValueError, match=rf"the inputs have no 'dense', \[B, {columns}\] numbers"):
        use({name: value for name, value in x.items() if name != "dense"})
    with pytest.raises(TypeError, match=r"inputs of type (list|tuple).* Give a dict"):
        use(list(x.values()))


def test_largest_numbers_are_numbers() -> None:
    model = compiled(small_config())
    x, _ = batch(8)
    x["dense"][:] = np.finfo(np.float32).max * np.where(np.arange(x["dense"].size) % 2, 1, -1).reshape(x["dense"].shape)
    assert model(x).shape == (8, 1)
    x["dense"] = np.zeros(x["dense"].shape, np.int64)
    assert np.isfinite(model(x)).all()


@pytest.mark.parametrize("rate", [0.001, 0.163, 0.7])
def test_one_epoch_at_a_small_rate_is_never_worse_than_the_constant(rate) -> None:
    x, _ = batch(4096)
    y = (np.random.default_rng(1).random((4096, 1)) < rate).astype(np.float32)
    base = float(y.mean())
    model = DLRM(small_config(), output_bias=float(np.log(base) - np.log1p(-base)))
    np.testing.assert_allclose(model.predict_probability(x, verbose=0), base, rtol=1e-5)
    model.compile(keras.optimizers.SGD(0.003), losses.BinaryCrossentropy())
    model.fit(x, y, batch_size=128, verbose=0)
    constant = -(base * np.log(base) + (1 - base) * np.log1p(-base))
    assert model.evaluate(x, y, verbose=0) <= constant + 1e-6
    again = DLRM.from_config(model.get_config())
    np.testing.assert_allclose(again.predict_probability(x, verbose=0), base, rtol=1e-5)


def test_one_bias_a_task() -> None:
    model = DLRM(small_config(tasks=("a", "b")), output_bias=[-1.0, 2.0])
    np.testing.assert_allclose(model(batch(3)[0]), [[-1.0, 2.0]] * 3)
    for bias, message in (
        ([1.0], "has 1 values"),
        ([1.0, float("inf")], "is not finite"),
        (float("nan"), "is not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            DLRM(small_config(tasks=("a", "b")), output_bias=bias)


class Labels(Dataset):
    """Rows of which nothing but the labels is looked at."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels

    def epoch_batches(self, plan, epoch, start_batch):
        raise NotImplementedError

    def sample(self, num_rows, seed=0):
        raise NotImplementedError

    def batches(self, batch_size, **options):
        data = tf.data.Dataset.from_tensor_slices(self.labels).batch(batch_size)
        return data.map(lambda labels: ({}, labels))


def test_first_logits_are_those_of_the_labels() -> None:
    labels = np.zeros((1000, 2), np.float32)
    labels[:250, 0] = 1
    found = first_logits(TrainConfig(), Labels(labels))
    assert found[0] == pytest.approx(np.log(250.5 / 750.5))
    assert np.isfinite(found[1])
    weighted = first_logits(TrainConfig(loss="wbce", loss_weights=(0.5, 2.0)), Labels(labels))
    assert weighted[0] == pytest.approx(np.log(2.0 * 250.5 / (0.5 * 750.5)))
