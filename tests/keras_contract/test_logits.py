"""What Keras's users write in `compile` means what it says on a DLRM, whose output is logits."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.keras_contract.twins import RNG
from tfdlrm import CategoricalColumn, DenseColumn, FeatureSpec, losses, metrics
from tfdlrm.config import DLRMConfig
from tfdlrm.embeddings.optimizers import Adagrad
from tfdlrm.models import DLRM

ROWS, VOCABULARY = 4096, 50
X = {"dense": RNG.random((ROWS, 1), np.float32), "item": RNG.integers(0, VOCABULARY, ROWS)}
Y = (RNG.random((ROWS, 1)) < 0.05 + 0.25 * (X["item"][:, None] % 2)).astype(np.float32)


def model(labels: tuple[str, ...] = ("click",)) -> DLRM:
    spec = FeatureSpec(
        labels=labels,
        dense=(DenseColumn(name="d"),),
        categorical=(CategoricalColumn(name="item"),),
        vocabulary_sizes={"item": VOCABULARY},
    )
    return DLRM(DLRMConfig.from_schema(spec, embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1)), Adagrad(0.1))


def evaluated(one: keras.Model, **given) -> dict[str, float]:
    one.compile("sgd", given.pop("loss", losses.BinaryCrossentropy()), **given)
    return one.evaluate(X, Y, verbose=0, return_dict=True)


@pytest.fixture(scope="module")
def trained() -> DLRM:
    one = model()
    one.compile(keras.optimizers.SGD(0.1), losses.BinaryCrossentropy())
    one.fit(X, Y, batch_size=256, epochs=5, verbose=0)
    return one


@pytest.fixture(scope="module")
def probability(trained) -> np.ndarray:
    return trained.predict_probability(X, verbose=0)


@pytest.mark.parametrize(
    ("given", "make"),
    [
        ("AUC", keras.metrics.AUC),
        ("auc", keras.metrics.AUC),
        (keras.metrics.AUC, keras.metrics.AUC),
        (keras.metrics.AUC(curve="PR", name="pr"), lambda: keras.metrics.AUC(curve="PR")),
        (keras.metrics.AUC(from_logits=True, name="own"), keras.metrics.AUC),
        ("accuracy", keras.metrics.BinaryAccuracy),
        ("acc", keras.metrics.BinaryAccuracy),
        ("binary_accuracy", keras.metrics.BinaryAccuracy),
        (keras.metrics.binary_accuracy, keras.metrics.BinaryAccuracy),
        (keras.metrics.BinaryAccuracy(threshold=0.2), lambda: keras.metrics.BinaryAccuracy(threshold=0.2)),
        ("binary_crossentropy", keras.metrics.BinaryCrossentropy),
        ("crossentropy", keras.metrics.BinaryCrossentropy),
        (keras.metrics.MeanMetricWrapper(keras.metrics.binary_accuracy, name="w"), keras.metrics.BinaryAccuracy),
        ("Precision", keras.metrics.Precision),
        (keras.metrics.Precision(thresholds=0.2), lambda: keras.metrics.Precision(thresholds=0.2)),
        (keras.metrics.Recall(thresholds=0.2), lambda: keras.metrics.Recall(thresholds=0.2)),
        (keras.metrics.TruePositives(thresholds=0.2), lambda: keras.metrics.TruePositives(thresholds=0.2)),
        (keras.metrics.F1Score(threshold=0.2), lambda: keras.metrics.F1Score(threshold=0.2)),
        (metrics.LogLoss(from_logits=False), keras.metrics.BinaryCrossentropy),
        (metrics.LogLoss(), keras.metrics.BinaryCrossentropy),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_the_probabilities(trained, probability, given, make, weighted) -> None:
    expected = make()
    expected.update_state(Y, probability)
    if isinstance(given, keras.metrics.Metric):  # Keras does not clear one that another model has used
        given = type(given).from_config(given.get_config())
    found = evaluated(trained, **{"weighted_metrics" if weighted else "metrics": [given]})
    if isinstance(given, str):
        assert given in found
    value = next(value for name, value in found.items() if name != "loss")
    np.testing.assert_allclose(value, np.asarray(expected.result()), atol=2e-6)


def test_metrics_in_every_form_that_compile_takes(trained) -> None:
    expected = evaluated(trained, metrics=["AUC"])["AUC"]
    assert expected > 0.7
    for form in (["AUC"], ("AUC",), [["AUC"]]):
        found = evaluated(trained, metrics=form)
        assert next(value for name, value in found.items() if "AUC" in name) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        "binary_crossentropy",
        "bce",
        keras.losses.BinaryCrossentropy(),
        keras.losses.BinaryCrossentropy,
        keras.losses.binary_crossentropy,
        keras.losses.BinaryCrossentropy(from_logits=True),
        losses.BinaryCrossentropy(),
        ["binary_crossentropy"],
    ],
)
def test_cross_entropy_is_that_of_the_probabilities(trained, probability, given) -> None:
    expected = float(-np.mean(Y * np.log(probability) + (1 - Y) * np.log1p(-probability)))
    assert evaluated(trained, loss=given)["loss"] == pytest.approx(expected, abs=1e-5)


def test_other_losses_keep_what_they_were_given(trained, probability) -> None:
    smooth = keras.losses.BinaryCrossentropy(label_smoothing=0.2)
    assert evaluated(trained, loss=smooth)["loss"] == pytest.approx(float(smooth(Y, probability)), abs=1e-5)
    focal = keras.losses.BinaryFocalCrossentropy(gamma=1.0)
    assert evaluated(trained, loss=focal)["loss"] == pytest.approx(float(focal(Y, probability)), abs=1e-5)
    logits = trained.predict(X, verbose=0)
    assert evaluated(trained, loss="mse")["loss"] == pytest.approx(float(np.mean((logits - Y) ** 2)), rel=1e-5)


def test_trained_to_the_base_rate() -> None:
    one = model()
    one.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["AUC"])
    one.fit(X, Y, batch_size=256, epochs=5, verbose=0)
    assert abs(float(one.predict_probability(X, verbose=0).mean()) - float(Y.mean())) < 0.02


def test_a_compiled_model_is_saved_and_loaded(trained, tmp_path) -> None:
    expected = evaluated(trained, loss="bce", metrics=["AUC", "accuracy", keras.metrics.Precision(thresholds=0.2)])
    trained.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    found = loaded.evaluate(X, Y, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, abs=1e-6)


def test_several_tasks() -> None:
    one = model(("click", "buy"))
    both = np.concatenate([Y, 1 - Y], axis=1)
    one.compile("sgd", "binary_crossentropy", metrics=["AUC", "accuracy"])
    found = one.evaluate(X, both, verbose=0, return_dict=True)
    p = one.predict_probability(X, verbose=0)
    assert found["accuracy"] == pytest.approx(float(np.mean((p > 0.5) == both)), abs=1e-6)
    assert found["loss"] == pytest.approx(float(-np.mean(both * np.log(p) + (1 - both) * np.log1p(-p))), abs=1e-5)
