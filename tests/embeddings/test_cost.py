"""No op of a training step reads, writes, copies or allocates a table."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdlrm.config import FeatureConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowwiseAdagrad
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.models import Model

ROWS = 1_000_003  # no other size in the graph is near it
ROW_OPS = {"ResourceGather", "ResourceScatterUpdate", "ResourceScatterSub"}


def functions_of(graph: tf.Graph) -> list:
    """The operations of a graph and of every function it calls, to any depth."""
    found = list(graph.get_operations())
    for function in graph._functions.values():
        body = getattr(function, "graph", None)
        if body is not None:
            found += functions_of(body)
    return found


def costly(model: keras.Model, x, y) -> list[str]:
    """Ops of the model's training step that touch O(rows): a large static output, or a whole-variable access."""
    step = tf.function(model.train_step, reduce_retracing=True)
    graph = step.get_concrete_function((x, y)).graph
    found = []
    for op in functions_of(graph):
        for tensor in op.outputs:
            if tensor.shape.rank and any(size is not None and size >= ROWS for size in tensor.shape):
                found.append(f"{op.type} gives {tensor.shape}")
        for tensor in op.inputs:
            if tensor.dtype != tf.resource or op.type in ROW_OPS or not _is_table(tensor):
                continue
            if op.type not in ("Identity", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall"):
                found.append(f"{op.type} on a table's handle")
    return found


def _is_table(handle: tf.Tensor) -> bool:
    data = getattr(handle, "_handle_data", None)
    shapes = [tf.TensorShape(item.shape) for item in data.shape_and_type] if data is not None and data.is_set else []
    return any(shape.rank and shape[0] is not None and shape[0] >= ROWS for shape in shapes)


def batch(num_features: int = 2) -> tuple[tf.Tensor, tf.Tensor]:
    ids = np.random.default_rng(0).integers(0, 1000, (32, num_features))
    return tf.constant(ids), tf.ones((32, 1))


def engine_model(cls: type[keras.Model], optimizer, keras_optimizer=None, **table_options) -> keras.Model:
    tables = [TableConfig(name=f"t{k}", vocabulary_size=ROWS, embedding_dim=4, **table_options) for k in range(2)]
    ids = keras.Input((2,), dtype="int64")
    vectors = EmbeddingCollection(
        [FeatureConfig(name=f"f{k}", table=table) for k, table in enumerate(tables)], optimizer=optimizer
    )(ids)
    model = cls(ids, keras.layers.Dense(1)(keras.layers.Flatten()(vectors)))
    model.compile(keras_optimizer or keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("cls", [Model, keras.Model])
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, weight_decay=0.1),
        Adagrad(0.1),
        RowwiseAdagrad(0.1, l2=0.1, clipnorm=1.0),
        LazyAdam(0.1),
        FTRL(0.1),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_no_op_touches_a_table(cls, optimizer) -> None:
    assert costly(engine_model(cls, optimizer), *batch()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"pooling_weights": "learned"},
        {"quotient_remainder": QuotientRemainderConfig(collisions=1, threshold=0)},
        {"output_dim": 8},
        {"combiner": "mean"},
    ],
    ids=str,
)
def test_no_option_of_a_table_does(options) -> None:
    assert costly(engine_model(Model, RowwiseAdagrad(0.1), **options), *batch()) == []


@pytest.mark.parametrize(
    "keras_optimizer",
    [
        {"global_clipnorm": 1.0},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 2.0},
    ],
    ids=str,
)
def test_no_option_of_the_keras_optimizer_does(keras_optimizer) -> None:
    model = engine_model(Model, RowwiseAdagrad(0.1), keras.optimizers.SGD(0.1, **keras_optimizer))
    assert costly(model, *batch()) == []


def test_the_check_sees_what_keras_does_with_a_table() -> None:
    ids = keras.Input((2,), dtype="int64")
    vectors = keras.layers.Embedding(ROWS, 4)(ids)
    model = keras.Model(ids, keras.layers.Dense(1)(keras.layers.Flatten()(vectors)))
    model.compile(keras.optimizers.Adagrad(0.1), "mse", jit_compile=False)
    found = costly(model, *batch())
    assert any(line.startswith("ReadVariableOp") for line in found)
    assert any(line.startswith("Sqrt") for line in found)
