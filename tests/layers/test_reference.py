"""The NumPy oracle itself, against what the reference implementation stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import reference as oracle
from tests.golden_files import golden_files, golden_runs
from tests.reference import Bags
from tests.reference_dlrm import ReferenceDLRM


def assert_close(actual: np.ndarray, stored: np.ndarray, name: str = "") -> None:
    """Within 1e-5 of the value, or 1e-6 of the array's largest one: the stored sums were taken in float32."""
    scale = np.abs(stored).max(initial=0.0)
    np.testing.assert_allclose(actual, stored, rtol=1e-5, atol=1e-6 * scale, err_msg=name)


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _section(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize("path", golden_runs(), ids=lambda path: path.stem)
def test_a_stored_run(path: Path) -> None:
    arrays = _load(path)
    config = json.loads(str(arrays["config"]))
    model = ReferenceDLRM(config, _section(arrays, "initial"))
    for step in range(config["steps"]):
        stored = _section(arrays, f"step_{step}")
        bags = [Bags(stored[f"ids_{k}"], stored[f"offsets_{k}"]) for k in range(len(config["rows"]))]
        assert_close(model.probability(stored["dense"], bags), stored["probability"])
        if step == 0:
            _, gradients = model.gradients(stored["dense"], bags, stored["label"])
            for name, value in _section(arrays, "gradient").items():
                assert_close(gradients[name], value, name)
        loss = model.train_step(stored["dense"], bags, stored["label"], float(stored["learning_rate"]))
        assert_close(loss, stored["loss"])
    for name, value in _section(arrays, "final").items():
        assert_close(model.weights[name], value, name)


@pytest.mark.parametrize("path", golden_files("lowrank_cross*.npz"), ids=lambda path: path.stem)
def test_the_stored_cross(path: Path) -> None:
    arrays = _load(path)
    count = sum(name.startswith("layer_") and name.endswith("/V") for name in arrays)
    layers = [tuple(arrays[f"layer_{i}/{part}"] for part in ("V", "W", "bias")) for i in range(count)]
    outputs = oracle.low_rank_cross(arrays["x"], layers)
    assert_close(outputs[-1], arrays["y"])
    dx, gradients = oracle.low_rank_cross_backward(arrays["dy"], outputs, layers)
    assert_close(dx, arrays["dx"])
    for i, layer in enumerate(gradients):
        for part, value in zip(("V", "W"), layer, strict=False):
            assert_close(value, arrays[f"gradient/layer_{i}/{part}"], f"layer {i} {part}")


def _numeric(function, array: np.ndarray, upstream: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of `sum(upstream * function())` as `array` changes."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        values = []
        for shift in (step, -step):
            array[index] = kept + shift
            values.append((upstream * function()).sum())
        array[index] = kept
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("itself", [False, True])
def test_backward_of_the_dot_interaction_is_its_derivative(itself: bool) -> None:
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(2, 3)), rng.normal(size=(2, 4, 3))
    upstream = rng.normal(size=oracle.dot_interaction(x, e, itself).shape)
    found = oracle.dot_interaction_backward(upstream, x, e, itself)
    for gradient, array in zip(found, (x, e), strict=True):
        numeric = _numeric(lambda: oracle.dot_interaction(x, e, itself), array, upstream)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_backward_of_pooling_is_its_derivative(combiner: str) -> None:
    rng = np.random.default_rng(1)
    table, row_weights = rng.normal(size=(5, 2)), rng.normal(size=5)
    bags = Bags.of([[0, 3, 3], [], [4]], [[0.5, 2.0, -1.0], [], [3.0]])
    upstream = rng.normal(size=(3, 2))
    found = oracle.pool_backward(upstream, table, bags, combiner, row_weights)
    for gradient, array in zip(found, (table, row_weights), strict=True):
        numeric = _numeric(lambda: oracle.pool(table, bags, combiner, row_weights), array, upstream)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_pooling_by_hand() -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    bags = Bags.of([[0, 2], [], [1, 1]], [[1.0, 3.0], [], [1.0, -1.0]])
    np.testing.assert_allclose(oracle.pool(table, bags), [[16, 20], [0, 0], [0, 0]])
    np.testing.assert_allclose(oracle.pool(table, bags, "mean"), [[4, 5], [0, 0], [0, 0]])  # weights sum to 0
    np.testing.assert_allclose(oracle.pool(table, bags, "sqrtn")[0], np.array([16, 20]) / np.sqrt(10))
    np.testing.assert_allclose(oracle.pool(table, bags, row_weights=np.array([2.0, 1, 0]))[0], [2, 4])


def test_updates_by_hand() -> None:
    table = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    ids, gradients = np.array([2, 0, 2]), np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 4.0]])
    # row 2's total is (3, 4), row 0's (1, 1), row 1 is not touched
    sgd, _ = oracle.update_table("sgd", table, {}, ids, gradients, 0.1)
    np.testing.assert_allclose(sgd, [[0.9, 0.9], [2, 2], [2.7, 2.6]])
    slots = oracle.new_slots("rowwise_adagrad", table)
    rowwise, slots = oracle.update_table("rowwise_adagrad", table, slots, ids, gradients, 0.1)
    np.testing.assert_allclose(slots["accumulator"], [[1], [0], [12.5]])
    np.testing.assert_allclose(rowwise[2], 3 - 0.1 * np.array([3, 4]) / np.sqrt(12.5))
    slots = oracle.new_slots("adagrad", table, 0.1)
    adagrad, _ = oracle.update_table("adagrad", table, slots, ids, gradients, 0.1, epsilon=1e-7, inside=True)
    np.testing.assert_allclose(adagrad[2], 3 - 0.1 * np.array([3, 4]) / np.sqrt([9.1 + 1e-7, 16.1 + 1e-7]))
    adam, _ = oracle.update_table("lazy_adam", table, oracle.new_slots("lazy_adam", table), ids, gradients, 0.1)
    np.testing.assert_allclose(adam[[0, 2]], [[0.9, 0.9], [2.9, 2.9]], rtol=1e-6)  # the first step is lr * sign(g)
    clipped, _ = oracle.update_table("sgd", table, {}, ids, gradients, 1.0, clipnorm=1.0)
    np.testing.assert_allclose(np.linalg.norm(table - clipped), 1.0)
    decayed, _ = oracle.update_table("sgd", table, {}, ids, gradients, 0.1, l2=0.5, weight_decay=0.25)
    np.testing.assert_allclose(decayed[2], [3 - 0.1 * (3 + 1.5) - 0.075, 3 - 0.1 * (4 + 1.5) - 0.075])
    np.testing.assert_allclose(decayed[1], [2, 2])


def test_ftrl_by_hand() -> None:
    table = np.array([[1.0]])
    slots = {"accumulator": np.array([[4.0]]), "linear": np.array([[1.0]])}
    updated, new = oracle.update_table(
        "ftrl", table, slots, np.array([0]), np.array([[np.sqrt(5.0)]]), 0.5, l1=0.5, l2=1.0
    )
    z = 1 + np.sqrt(5.0) - (3 - 2) / 0.5 * 1.0  # sigma = (sqrt(9) - sqrt(4)) / lr
    np.testing.assert_allclose(new["linear"], [[z]])
    np.testing.assert_allclose(updated, [[(0.5 - z) / (3 / 0.5 + 2)]])
    held, _ = oracle.update_table("ftrl", table, slots, np.array([0]), np.array([[np.sqrt(5.0)]]), 0.5, l1=9.0)
    assert held[0, 0] == 0.0
