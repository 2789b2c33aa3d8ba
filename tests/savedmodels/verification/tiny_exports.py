"""A SavedModel with every form of input, made of TensorFlow alone, with all that an export leaves beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from savedmodels.manifest import write_manifest
from savedmodels.recorded import RecordedRequest, record_requests
from savedmodels.warmup import write_warmup

NUM_ROWS, DIM = 12, 4
INFO: Mapping[str, Any] = {
    "version": 1,
    "quantization": {"user": "none"},
    "rows": {"user": NUM_ROWS},
    "sizes": {"rows": NUM_ROWS * DIM * 4, "dense_weights": 8, "vocabularies": 0},
    "metrics": {"auc": 0.75, "gauc": float("nan")},
}
COLUMNS = {
    "dense": tf.TensorSpec([None, 2], tf.float32),
    "user": tf.TensorSpec([None], tf.int64),
    "genres": tf.TensorSpec([None], tf.int64),
    "genres_row_lengths": tf.TensorSpec([None], tf.int64),
    "genres_weights": tf.TensorSpec([None], tf.float32),
    "query": tf.TensorSpec([None], tf.string),
}


class TinyModel(tf.Module):
    """A row a user, weighted rows of genres, and the length of a text, in a logit."""

    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(3)
        self.rows = tf.Variable(generator.normal(size=(NUM_ROWS, DIM)), dtype=tf.float32, name="rows")
        self.weights = tf.Variable([0.3, -0.2], name="weights")

    def vectors(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """`[B, 2, D]`."""
        genres = tf.gather(self.rows, inputs["genres"]) * inputs["genres_weights"][:, tf.newaxis]
        bags = tf.RaggedTensor.from_row_lengths(genres, inputs["genres_row_lengths"])
        return tf.stack([tf.gather(self.rows, inputs["user"]), tf.reduce_sum(bags, axis=1)], axis=1)

    @tf.function(autograph=False)
    def predict(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Columns to `[B, 1]`."""
        vectors = self.vectors(inputs)
        logit = tf.reduce_sum(inputs["dense"] * self.weights, axis=1) + tf.reduce_sum(vectors[:, 0] * vectors[:, 1], 1)
        logit += 0.1 * tf.cast(tf.strings.length(inputs["query"]), tf.float32)
        return {"probability": tf.sigmoid(logit)[:, tf.newaxis], "logit": logit[:, tf.newaxis]}

    @tf.function(autograph=False)
    def of_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized examples to `[B, 1]`."""
        parsed = tf.io.parse_example(
            examples, {"age": tf.io.FixedLenFeature([], tf.float32), "user": tf.io.FixedLenFeature([], tf.int64)}
        )
        logit = parsed["age"] + tf.reduce_sum(tf.gather(self.rows, parsed["user"]), axis=1)
        return {"probability": tf.sigmoid(logit)[:, tf.newaxis], "logit": logit[:, tf.newaxis]}

    @tf.function(autograph=False)
    def shout(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        """Strings to strings; of no documented name."""
        return {"loud": tf.strings.upper(query), "again": tf.stack([query, query], axis=1)}


def columns(batch_size: int) -> dict[str, np.ndarray]:
    """Inputs of `predict`; one text ends in a zero byte, which NumPy's fixed-width strings would lose."""
    generator = np.random.default_rng(batch_size)
    lengths = generator.integers(0, 3, batch_size)
    lengths[0] = 0
    texts = np.array([b"a\0", b"", *[b"query of %d" % i for i in range(batch_size)]][:batch_size], object)
    return {
        "dense": generator.normal(size=(batch_size, 2)).astype(np.float32),
        "user": generator.integers(0, NUM_ROWS, batch_size),
        "genres": generator.integers(0, NUM_ROWS, lengths.sum()),
        "genres_row_lengths": lengths,
        "genres_weights": generator.random(lengths.sum()).astype(np.float32),
        "query": texts,
    }


def examples(batch_size: int) -> np.ndarray:
    """Inputs of `serving_default`."""
    features = [
        {
            "age": tf.train.Feature(float_list=tf.train.FloatList(value=[0.1 * i])),
            "user": tf.train.Feature(int64_list=tf.train.Int64List(value=[i % NUM_ROWS])),
        }
        for i in range(batch_size)
    ]
    result = np.empty(batch_size, object)
    result[:] = [
        tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString() for feature in features
    ]
    return result


def live_requests(model: TinyModel) -> dict[str, list[RecordedRequest]]:
    """Requests of every signature with the model's own answers."""

    def answered(function: Any, inputs: dict[str, np.ndarray], *, as_dict: bool) -> RecordedRequest:
        tensors = {name: tf.constant(array) for name, array in inputs.items()}
        outputs = function(tensors) if as_dict else function(**tensors)
        return RecordedRequest(inputs, {name: tensor.numpy() for name, tensor in outputs.items()})

    return {
        "serving_default": [answered(model.of_examples, {"examples": examples(3)}, as_dict=False)],
        "predict": [answered(model.predict, columns(size), as_dict=True) for size in (1, 5)],
        "shout": [answered(model.shout, {"query": columns(4)["query"]}, as_dict=False)],
    }


def write_tiny_export(folder: Path) -> TinyModel:
    """Writes a version folder."""
    model = TinyModel()
    signatures = {
        "serving_default": model.of_examples.get_concrete_function(tf.TensorSpec([None], tf.string, name="examples")),
        "predict": model.predict.get_concrete_function(
            {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in COLUMNS.items()}
        ),
        "shout": model.shout.get_concrete_function(tf.TensorSpec([None], tf.string, name="query")),
    }
    tf.saved_model.save(model, str(folder), signatures=signatures)
    requests = live_requests(model)
    record_requests(folder, requests)
    write_warmup(folder, "tiny", requests)
    write_manifest(folder, info=INFO)
    return model
