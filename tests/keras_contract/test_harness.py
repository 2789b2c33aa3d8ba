"""Keras's own test of a layer, run on every layer of ours, with init arguments as Keras serializes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

from tfdlrm import layers
from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.optimizers import SGD


class Case(NamedTuple):
    """A layer for `run_layer_test`: class, arguments, and what it is to find."""

    layer: type[keras.layers.Layer]
    arguments: dict[str, Any]
    inputs: Any
    output: Any
    trainable: int


def table(**options: Any) -> TableConfig:
    return TableConfig(name="item", vocabulary_size=9, embedding_dim=4, **options)


def ids(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape) % 9


ONE = [FeatureConfig(name="a", table=table())]
TWO = [FeatureConfig(name="a", table=table()), FeatureConfig(name="b", table=table(), hotness=3)]

CASES = {
    "mlp": Case(layers.MLP, {"units": [5, 3]}, (2, 4), (2, 3), 4),
    "mlp of sequences": Case(layers.MLP, {"units": [5, 3], "final_activation": "relu"}, (2, 6, 4), (2, 6, 3), 4),
    "mlp with normalization": Case(
        layers.MLP, {"units": [5, 3], "normalization": "layer", "dropout": 0.5, "seed": 1}, (2, 4), (2, 3), 6
    ),
    "mlp with an output bias": Case(layers.MLP, {"units": [5, 1], "output_bias": -2.0}, (2, 4), (2, 1), 4),
    "dot interaction": Case(layers.DotInteraction, {}, [(2, 4), (2, 3, 4)], (2, 10), 0),
    "dot interaction, padded": Case(
        layers.DotInteraction, {"interact_itself": True, "padding": 8}, [(2, 4), (2, 3, 4)], (2, 16), 0
    ),
    "concatenation": Case(layers.ConcatInteraction, {}, [(2, 4), (2, 3, 4)], (2, 16), 0),
    "low-rank cross": Case(layers.LowRankCross, {"num_layers": 2, "rank": 3}, (2, 6), (2, 6), 6),
    "projected dot": Case(
        layers.ProjectedDotInteraction,
        {"branch1_units": [8], "branch2_units": [12]},
        [(2, 4), (2, 3, 4)],
        (2, 10),
        4,
    ),
    "collection": Case(layers.EmbeddingCollection, {"features": ONE, "optimizer": SGD()}, ids(2, 1), (2, 1, 4), 1),
    "collection of bags": Case(
        layers.EmbeddingCollection, {"features": TWO, "optimizer": SGD()}, ids(2, 4), (2, 2, 4), 1
    ),
    "collection as a dict": Case(
        layers.EmbeddingCollection,
        {"features": TWO, "optimizer": SGD(), "output": "dict"},
        ids(2, 4),
        {"a": (2, 4), "b": (2, 4)},
        1,
    ),
    "collection of narrow rows": Case(
        layers.EmbeddingCollection,
        {"features": [FeatureConfig(name="a", table=table(output_dim=6))], "optimizer": SGD()},
        ids(2, 1),
        (2, 1, 6),
        2,
    ),
}


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # by the harness, beside a generator
@pytest.mark.parametrize("name", list(CASES))
def test_keras_harness(name: str) -> None:
    case = CASES[name]
    takes_shapes = isinstance(case.inputs, (tuple, list))
    TestCase("run_layer_test").run_layer_test(
        case.layer,
        case.arguments,
        **({"input_shape": case.inputs} if takes_shapes else {"input_data": case.inputs}),
        expected_output_shape=case.output,
        expected_num_trainable_weights=case.trainable,
        expected_num_non_trainable_weights=0,
        expected_num_losses=0,
        # the harness feeds a list of inputs by a generator of lists, which TensorFlow refuses; tests/layers trains them
        run_training_check=not isinstance(case.inputs, list),
    )


def test_what_the_models_are_made_of_is_all_here() -> None:
    tested = {case.layer for case in CASES.values()}
    public = {getattr(layers, name) for name in layers.__all__}
    assert {layer for layer in public if issubclass(layer, keras.layers.Layer)} == tested
