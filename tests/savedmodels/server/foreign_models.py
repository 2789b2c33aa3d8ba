"""SavedModels of others: Keras, tensorflow-recommenders, TensorFlow 1, frozen graphs, and outputs of every kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))


def keras_models() -> dict[str, keras.Model]:
    """One of each way to write a Keras model, with weights of their own."""
    sequential = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    age, city = keras.Input((1,), name="age"), keras.Input((1,), dtype="string", name="city")
    scaled = keras.layers.Normalization(mean=30.0, variance=100.0)(age)
    ids = keras.layers.StringLookup(vocabulary=["berlin", "lima"])(city)
    vectors = keras.layers.Flatten()(keras.layers.Embedding(3, 4)(ids))
    joined = keras.layers.Concatenate()([scaled, vectors])
    functional = keras.Model({"age": age, "city": city}, {"click": keras.layers.Dense(1)(joined), "scaled": scaled})
    subclassed = TwoTowers()
    subclassed({"x": tf.zeros([1, 3]), "y": tf.zeros([1, 2])})
    return {"sequential": sequential, "functional": functional, "subclassed": subclassed}


class TwoTowers(keras.Model):
    """A dot product of two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = keras.layers.Dense(4), keras.layers.Dense(4)

    def call(self, inputs: Mapping[str, Any]) -> Any:
        return keras.ops.sum(self.left(inputs["x"]) * self.right(inputs["y"]), axis=-1)


def save_recommender_index(folder: Path) -> None:
    """A brute-force index of tensorflow-recommenders; in a process of its own, for it needs another Keras."""
    program = (
        "import os, sys; os.environ['TF_USE_LEGACY_KERAS'] = '1'\n"
        "import tensorflow as tf, tensorflow_recommenders as tfrs\n"
        "index = tfrs.layers.factorized_top_k.BruteForce(k=2)\n"
        "index.index(tf.constant([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]), tf.constant(['a', 'b', 'c']))\n"
        "index(tf.zeros([1, 2]))\n"
        "tf.saved_model.save(index, sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, capture_output=True)


def save_half_plus_two(folder: Path, *, with_resource: bool, as_text: bool = False) -> None:
    """y = x / 2 + 2, y2 = x / 2 + 3, with every kind of signature, an asset and a table, as TensorFlow 1 wrote them."""
    with tf.Graph().as_default(), v1.Session() as session:
        a, b, c = (
            v1.get_variable(name, initializer=value, use_resource=with_resource)
            for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0))
        )
        serialized = v1.placeholder(tf.string, name="tf_example")
        parsed = v1.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(parsed["x"], name="x")
        y, y2 = a * x + b, a * x + c
        words = folder.parent / "words.txt"
        words.parent.mkdir(exist_ok=True)
        words.write_text("low\nhigh\n")
        table = v1.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(words), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
            ),
            "?",
        )
        word = table.lookup(tf.cast(y > 3.0, tf.int64))
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info, signature = v1.saved_model.build_tensor_info, v1.saved_model.build_signature_def
        signatures = {
            "serving_default": signature({"x": info(x)}, {"y": info(y)}, PREDICT),
            "word": signature({"x": info(x)}, {"word": info(word)}, PREDICT),
            "regress_x_to_y": signature({"inputs": info(serialized)}, {"outputs": info(y)}, REGRESS),
            "regress_x_to_y2": signature({"inputs": info(serialized)}, {"outputs": info(y2)}, REGRESS),
            "classify_x_to_y": signature({"inputs": info(serialized)}, {"scores": info(y)}, CLASSIFY),
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signatures,
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save(as_text)


class HalfPlusThree(tf.Module):
    """y = x / 2 + 3 in TensorFlow 2, with one signature for Regress."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = tf.Variable(0.5), tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.a * x + self.b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        return {"outputs": self.a * parsed["x"] + self.b}


def save_frozen(folder: Path) -> None:
    """2 x, a graph of constants: no variables, and no files of them."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": 2.0 * x})
    assert not (folder / "variables" / "variables.index").exists()


class Outputs(tf.Module):
    """A signature for each kind of output."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def named(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 2 * x, "model_name": tf.constant("clicks-7"), "zero_bytes": tf.constant(b"a\0")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.bfloat16, name="x")])
    def brain(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def ragged(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.RaggedTensor.from_row_lengths(x, [tf.size(x)])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.complex64, name="x")])
    def complex(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x}

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def multiplied(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.matmul(x, [[3.0]])}


def save_outputs(folder: Path) -> None:
    """All signatures of `Outputs`."""
    model = Outputs()
    names = ("named", "brain", "ragged", "complex", "multiplied")
    tf.saved_model.save(model, str(folder), signatures={name: getattr(model, name) for name in names})


def keras_inputs(name: str, rows: int = 3) -> dict[str, np.ndarray]:
    """Inputs of a model of `keras_models`, by name."""
    random = np.random.default_rng(0)
    if name == "functional":
        cities = np.array([[b"berlin"], [b"lima"], [b"oslo"]], object)[:rows]
        return {"age": random.normal(30, 10, (rows, 1)).astype(np.float32), "city": cities}
    if name == "subclassed":
        return {key: random.normal(size=(rows, width)).astype(np.float32) for key, width in (("x", 3), ("y", 2))}
    return {"x": random.normal(size=(rows, 3)).astype(np.float32)}
