"""Tiny SavedModels with every form of signature that a server meets."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

NUM_USERS = 100
NUM_GENRES = 10
MAX_STEPS = 1000  # of the signature `slow`


class TinyModel(tf.Module):
    """Its outputs say which version gave them.

    Args:
        version: in every row of the output `version`.
        num_floats: of a variable that only takes memory.
    """

    def __init__(self, version: int, num_floats: int = 4) -> None:
        super().__init__()
        self.version = tf.Variable(version, dtype=tf.int64)
        self.users = tf.Variable(tf.reshape(tf.range(float(NUM_USERS)), [NUM_USERS, 1]) / NUM_USERS)
        self.genres = tf.Variable(tf.reshape(tf.range(float(NUM_GENRES)), [NUM_GENRES, 1]))
        self.ballast = tf.Variable(tf.fill([num_floats], float(version)))

    def logit(self, dense: tf.Tensor, user: tf.Tensor) -> tf.Tensor:
        """Float32 [B, 1]; NaN in `dense` counts as 0."""
        check = tf.debugging.assert_less(
            user, tf.constant(NUM_USERS, tf.int64), message=f"feature 'user': an id is not below {NUM_USERS}. Clip it."
        )
        with tf.control_dependencies([check]):
            known = tf.where(tf.math.is_nan(dense), tf.zeros_like(dense), dense)
            return tf.reduce_sum(known, 1, keepdims=True) + tf.gather(self.users, user) + 0.0 * self.ballast[0]

    def bags(self, genres: tf.Tensor, lengths: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Float32 [B, 1]: the weighted sum of each bag."""
        rows = tf.RaggedTensor.from_row_lengths(
            tf.gather(self.genres, genres) * weights[:, tf.newaxis], lengths, validate=False
        )
        return tf.reduce_sum(rows, 1)

    def rows(self, values: tf.Tensor) -> tf.Tensor:
        """The version, int64 [B]."""
        return tf.fill([tf.shape(values)[0]], 1) * 0 + tf.cast(self.version, tf.int32)


def _spec(name: str, dtype: tf.DType, *shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(list(shape), dtype, name=name)


def signatures(model: TinyModel) -> dict:
    """All signatures of `model`, traced."""
    columns = {"user": tf.io.FixedLenFeature([], tf.int64), "dense": tf.io.FixedLenFeature([2], tf.float32)}

    @tf.function(autograph=False)
    def serving_default(examples):
        parsed = tf.io.parse_example(examples, columns)
        logit = model.logit(parsed["dense"], parsed["user"])
        return {"probability": tf.sigmoid(logit), "logit": logit}

    @tf.function(autograph=False)
    def predict(inputs):
        logit = model.logit(inputs["dense"], inputs["user"]) + model.bags(
            inputs["genres"], inputs["genres_row_lengths"], inputs["genres_weights"]
        )
        version = tf.cast(model.rows(logit), tf.int64)
        return {"probability": tf.sigmoid(logit), "logit": logit, "version": version}

    @tf.function(autograph=False)
    def rank(inputs):
        candidates = tf.shape(inputs["user"])[0]
        dense = tf.broadcast_to(inputs["dense"], [candidates, 2])
        probability = tf.sigmoid(model.logit(dense, inputs["user"]))
        top = tf.math.top_k(probability[:, 0], inputs["k"])
        return {"probability": probability, "top_index": top.indices, "top_probability": top.values}

    @tf.function(autograph=False)
    def slow(steps):
        """Each row counts to its number, at most to `MAX_STEPS`."""
        most = tf.minimum(tf.reduce_max(tf.concat([steps, [0]], 0)), MAX_STEPS)
        counted = tf.while_loop(lambda i: i < most, lambda i: [i + 1], [tf.constant(0, tf.int64)])
        return {"steps": tf.identity(steps) + 0 * counted[0]}

    @tf.function(autograph=False)
    def held(gate):
        """Answers once the file `gate[0]` exists: a request that runs for as long as a test wants it to."""

        def is_shut(turn):
            # the pattern changes with the turn, or the look could be taken out of the loop
            pattern = tf.strings.join([gate[0], tf.strings.substr("0", tf.minimum(turn, 0), 0)])
            return tf.equal(tf.size(tf.io.matching_files(pattern)), 0)

        turns = tf.while_loop(is_shut, lambda turn: [turn + 1], [tf.constant(0)], parallel_iterations=1)
        return {"gate": tf.strings.join([gate, tf.strings.substr("0", tf.minimum(turns[0], 0), 0)])}

    @tf.function(autograph=False)
    def echo(text):
        return {"text": tf.identity(text), "text_bytes": tf.identity(text)}

    @tf.function(autograph=False)
    def mean(x):
        return {"mean": tf.reduce_mean(x)}

    @tf.function(autograph=False)
    def classify(inputs):
        parsed = tf.io.parse_example(inputs, columns)
        probability = tf.sigmoid(model.logit(parsed["dense"], parsed["user"]))
        labels = tf.tile([["no", "yes"]], [tf.shape(inputs)[0], 1])
        return {"classes": labels, "scores": tf.concat([1 - probability, probability], 1)}

    @tf.function(autograph=False)
    def regress(inputs):
        parsed = tf.io.parse_example(inputs, columns)
        return {"outputs": model.logit(parsed["dense"], parsed["user"])}

    dense, user = _spec("dense", tf.float32, None, 2), _spec("user", tf.int64, None)
    bags = {
        "genres": _spec("genres", tf.int64, None),
        "genres_row_lengths": _spec("genres_row_lengths", tf.int64, None),
        "genres_weights": _spec("genres_weights", tf.float32, None),
    }
    serialized = _spec("inputs", tf.string, None)
    return {
        "serving_default": serving_default.get_concrete_function(_spec("examples", tf.string, None)),
        "predict": predict.get_concrete_function({"dense": dense, "user": user, **bags}),
        "rank": rank.get_concrete_function({"dense": dense, "user": user, "k": _spec("k", tf.int32)}),
        "slow": slow.get_concrete_function(_spec("steps", tf.int64, None)),
        "held": held.get_concrete_function(_spec("gate", tf.string, None)),
        "echo": echo.get_concrete_function(_spec("text", tf.string, None)),
        "mean": mean.get_concrete_function(_spec("x", tf.float32, None)),
        "classify": classify.get_concrete_function(serialized),
        "regress": regress.get_concrete_function(serialized),
    }


def save_version(base: Path, version: int, num_floats: int = 4) -> Path:
    """Writes a version below `base`; the folder appears whole."""
    model = TinyModel(version, num_floats)
    partial = base / f".{version}.partial"
    tf.saved_model.save(model, str(partial), signatures=signatures(model))
    partial.rename(base / str(version))
    return base / str(version)


def predict_inputs(num_rows: int) -> dict:
    """Inputs of the signature `predict`, as lists."""
    lengths = [row % 3 for row in range(num_rows)]
    return {
        "dense": [[0.5, 0.25 * row] for row in range(num_rows)],
        "user": [row % NUM_USERS for row in range(num_rows)],
        "genres": [i % NUM_GENRES for i in range(sum(lengths))],
        "genres_row_lengths": lengths,
        "genres_weights": [0.5] * sum(lengths),
    }


def predict_logits(inputs: dict) -> list[float]:
    """What the signature `predict` should give, in plain Python."""
    logits, start = [], 0
    for row, (dense, user) in enumerate(zip(inputs["dense"], inputs["user"], strict=True)):
        stop = start + inputs["genres_row_lengths"][row]
        bag = zip(inputs["genres"][start:stop], inputs["genres_weights"][start:stop], strict=True)
        logits.append(sum(dense) + user / NUM_USERS + sum(genre * weight for genre, weight in bag))
        start = stop
    return logits
