"""A small model with every form of input, and batches for it."""

from __future__ import annotations

import tensorflow as tf

from savedmodels.names import input_name
from tfdlrm.config import DLRMConfig
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age"), DenseColumn(name="price")),
    categorical=(
        CategoricalColumn(name="user"),
        CategoricalColumn(name="last items", table="item", hotness=3),
        CategoricalColumn(name="genres", hotness=None, weights="genre_weights", id_policy="oov"),
        CategoricalColumn(name="query", id_policy="hash"),
        CategoricalColumn(name="tags", hotness=None, table="item"),
    ),
    vocabulary_sizes={"user": 300, "item": 50, "genres": 7, "query": 11},
)


def build(**fields) -> DLRM:
    """A DLRM of `SPEC`, trained for a step so that it has optimizer state to leave behind."""
    options = {"embedding_dim": 8, "bottom_mlp": (16, 8), "top_mlp": (16, 1), **fields}
    model = DLRM(DLRMConfig.from_schema(SPEC, **options))
    model.compile("adam", "mse")
    model.train_on_batch(features(32), tf.zeros([32, 1]))
    return model


def features(batch_size: int, seed: int = 0) -> dict:
    """A batch of inputs as the reader delivers them."""

    def draw(shape, high):
        return tf.random.stateless_uniform(shape, [seed, high], maxval=high, dtype=tf.int64)

    def bags(high, longest):
        lengths = draw([batch_size], longest + 1)
        return tf.RaggedTensor.from_row_lengths(draw([int(tf.reduce_sum(lengths))], high), lengths)

    genres = bags(9, 4)  # ids 7 and 8 are out of vocabulary
    return {
        "dense": tf.random.stateless_normal([batch_size, 2], [seed, 1]),
        "user": draw([batch_size], 300),
        "last items": draw([batch_size, 3], 50),
        "genres": (
            genres,
            genres.with_flat_values(tf.random.stateless_uniform(tf.shape(genres.flat_values), [seed, 2])),
        ),
        "query": draw([batch_size], 2**62),
        "tags": bags(50, 2),
    }


def columnar(batch: dict) -> dict:
    """A batch of features as the signature takes it."""
    inputs = {}
    for name, value in batch.items():
        ids, weights = value if isinstance(value, tuple) else (value, None)
        if isinstance(ids, tf.RaggedTensor):
            inputs[input_name(name) + "_row_lengths"] = ids.row_lengths()
            ids, weights = ids.flat_values, None if weights is None else weights.flat_values
        inputs[input_name(name)] = ids
        if weights is not None:
            inputs[input_name(name) + "_weights"] = weights
    return inputs
