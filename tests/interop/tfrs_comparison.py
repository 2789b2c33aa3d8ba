"""Runs TFRS and tfdlrm on the same weights, in one process, and prints what each computed as JSON.

TFRS needs Keras 2 behind its `tf.keras`, hence a process of its own with TF_USE_LEGACY_KERAS=1; see
`test_tfrs_parity.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from tfdlrm import losses
from tfdlrm.config import DLRMConfig, FeatureConfig, TableConfig
from tfdlrm.embeddings import optimizers
from tfdlrm.interop.interaction_layouts import column_permutation
from tfdlrm.layers import MLP, DotInteraction, LowRankCross
from tfdlrm.models import DLRM

BATCH, WIDTH, NUM_DENSE = 12, 4, 3
LEARNING_RATE, STEPS = 0.3, 5
BOTTOM, TOP = (6, WIDTH), (8, 5, 1)
# TFRS takes features in the order of their sorted names: 1, 10, 2
ROWS = {"2": 20, "10": 7, "1": 33}
THEIR_ORDER = [list(ROWS).index(name) + 1 for name in sorted(ROWS)]
RNG = np.random.default_rng(11)

Pair = tuple[Any, Any]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def with_gradients(function: Any, sources: list[tf.Tensor], upstream: np.ndarray) -> list[tf.Tensor]:
    """The output, and the gradients of the sources."""
    with tf.GradientTape() as tape:
        tape.watch(sources)
        output = function()
    return [output, *tape.gradient(output, sources, output_gradients=tf.constant(upstream))]


def dot_interaction() -> Iterator[tuple[str, Pair]]:
    """Theirs gives the pairs of a list of vectors; given [x, e_1 .. e_F], the order is ours."""
    vectors = [tf.constant(normal(BATCH, WIDTH)) for _ in range(5)]
    for itself in (False, True):
        upstream = normal(BATCH, 15 if itself else 10)
        theirs = tfrs.layers.feature_interaction.DotInteraction(self_interaction=itself)
        ours = DotInteraction(itself, concat_dense=False)
        for name, training in (("evaluated", False), ("trained", True)):
            run_ours = tf.function(lambda o=ours, t=training: o(vectors, training=t), autograph=False)
            yield (
                f"dot interaction, itself={itself}, {name}",
                (
                    with_gradients(run_ours, vectors, upstream),
                    with_gradients(lambda t=theirs: t(vectors), vectors, upstream),
                ),
            )


def cross() -> Iterator[tuple[str, Pair]]:
    """Their `Cross` is one layer of ours: U is V here, V is W."""
    x, upstream = tf.constant(normal(BATCH, 10)), normal(BATCH, 10)
    theirs = [tfrs.layers.feature_interaction.Cross(projection_dim=3, bias_initializer="normal") for _ in range(3)]
    ours = LowRankCross(num_layers=3, rank=3)
    ours.build(x.shape)

    def run_theirs() -> tf.Tensor:
        xl = x
        for layer in theirs:
            xl = layer(x, xl)
        return xl

    run_theirs()
    for index, layer in enumerate(theirs):
        v, w, bias = layer.weights
        ours.v_kernels[index].assign(v)
        ours.w_kernels[index].assign(w)
        ours.biases[index].assign(bias)
    their_weights = [weight for layer in theirs for weight in layer.weights]
    our_weights = [weight.value for weight in ours.trainable_weights]
    yield (
        "cross",
        (
            with_gradients(lambda: ours(x), [x, *our_weights], upstream),
            with_gradients(run_theirs, [x, *their_weights], upstream),
        ),
    )


def mlp() -> Iterator[tuple[str, Pair]]:
    for final in (None, "relu", "sigmoid"):
        x, upstream = tf.constant(normal(BATCH, 6)), normal(BATCH, 3)
        theirs = tfrs.layers.blocks.MLP([7, 5, 3], final_activation=final)
        theirs(x)
        # seeded: some draws leave a layer without a single live unit, and nothing to compare
        ours = MLP([7, 5, 3], final_activation=final, seed=1)
        ours.build(x.shape)
        theirs.set_weights([weight.numpy() for weight in ours.weights])
        yield (
            f"MLP, final_activation={final}",
            (
                with_gradients(lambda o=ours, x=x: o(x), [x, *[w.value for w in ours.trainable_weights]], upstream),
                with_gradients(lambda t=theirs, x=x: t(x), [x, *theirs.trainable_weights], upstream),
            ),
        )


class TheirEmbeddings(tf_keras.layers.Layer):
    """One `Embedding` a feature: dict of ids to dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = {name: tf_keras.layers.Embedding(rows, WIDTH) for name, rows in ROWS.items()}

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: table(inputs[name]) for name, table in self.tables.items()}


def ranking() -> Iterator[tuple[str, Pair]]:
    """Whole models: probabilities, loss, and every weight after five steps of SGD, each trained by its own `fit`."""
    theirs = tfrs.experimental.models.Ranking(
        embedding_layer=TheirEmbeddings(),
        bottom_stack=tfrs.layers.blocks.MLP(list(BOTTOM), final_activation="relu"),
        top_stack=tfrs.layers.blocks.MLP(list(TOP), final_activation="sigmoid"),
    )
    theirs.compile(tf_keras.optimizers.SGD(LEARNING_RATE))
    tables = tuple(TableConfig(name=n, vocabulary_size=rows, embedding_dim=WIDTH) for n, rows in ROWS.items())
    ours = DLRM(
        DLRMConfig(
            num_dense=NUM_DENSE,
            tables=tables,
            features=tuple(FeatureConfig(name=name) for name in ROWS),
            embedding_dim=WIDTH,
            bottom_mlp=BOTTOM,
            top_mlp=TOP,
        ),
        optimizers.SGD(),
    )
    ours.compile(keras.optimizers.SGD(LEARNING_RATE), losses.BinaryCrossentropy())
    ours.build()

    count = BATCH * STEPS
    dense, label = normal(count, NUM_DENSE), (RNG.random(count) < 0.4).astype(np.float32)
    ids = {name: RNG.integers(0, rows, count).astype(np.int32) for name, rows in ROWS.items()}
    our_inputs = {"dense": dense, **ids}
    their_inputs = {"dense_features": dense, "sparse_features": ids}
    first = tf.nest.map_structure(lambda array: array[:BATCH], (our_inputs, their_inputs, label))

    def probabilities() -> Pair:
        their_rows = theirs({k: tf.nest.map_structure(tf.constant, v) for k, v in first[1].items()})
        return ours.predict_probability(first[0], verbose=0)[:, 0], their_rows

    theirs(tf.nest.map_structure(tf.constant, first[1]))
    copy_weights(theirs, ours)
    yield "Ranking, probabilities", probabilities()
    logits = ours(tf.nest.map_structure(tf.constant, first[0]))
    our_loss = ours.compute_loss(y=tf.constant(first[2][:, None]), y_pred=logits)
    yield "Ranking, loss", (our_loss, theirs.compute_loss((first[1], first[2])))

    dataset = tf.data.Dataset.from_tensor_slices((our_inputs, label[:, None])).batch(BATCH)
    ours.fit(dataset, verbose=0)
    theirs.fit(tf.data.Dataset.from_tensor_slices((their_inputs, label)).batch(BATCH), verbose=0)
    for name, pair in weight_pairs(theirs, ours):
        yield f"Ranking, {name} after {STEPS} steps", pair
    yield "Ranking, probabilities after training", probabilities()


def to_ours() -> np.ndarray:
    return column_permutation("tfrs", "tfdlrm", len(ROWS), WIDTH, source_order=THEIR_ORDER)


def dense_pairs(theirs: Any, ours: DLRM) -> Iterator[tuple[str, Any, Any, bool]]:
    """(name, our weight, their weight, whether its rows are interaction outputs)."""
    for kind, mine, other in (
        ("bottom", ours.bottom_mlp, theirs._bottom_stack),
        ("top", ours.top_mlps[0], theirs._top_stack),
    ):
        for index, (weight, counterpart) in enumerate(zip(mine.weights, other.weights, strict=True)):
            yield f"{kind} weight {index}", weight, counterpart, kind == "top" and index == 0


def copy_weights(theirs: Any, ours: DLRM) -> None:
    for _, weight, counterpart, is_first_top in dense_pairs(theirs, ours):
        value = counterpart.numpy()
        weight.assign(value[to_ours()] if is_first_top else value)
    for name, table in theirs._embedding_layer.tables.items():
        ours.embeddings.tables.assign_rows(name, table.embeddings.numpy())


def weight_pairs(theirs: Any, ours: DLRM) -> Iterator[tuple[str, Pair]]:
    for name, weight, counterpart, is_first_top in dense_pairs(theirs, ours):
        value = counterpart.numpy()
        yield name, (weight, value[to_ours()] if is_first_top else value)
    for name, table in theirs._embedding_layer.tables.items():
        yield f"table {name}", (ours.embeddings.tables.rows(name), table.embeddings)


def main() -> None:
    report = {
        "keras": keras.__version__,
        "tf_keras": tf_keras.__version__,
        "checks": {
            name: [[np.asarray(array, np.float64).ravel().tolist() for array in tf.nest.flatten(side)] for side in pair]
            for part in (dot_interaction, cross, mlp, ranking)
            for name, pair in part()
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
