"""An export is loaded by everything that loads SavedModels, with the same numbers as from `tf.saved_model.load`.

The C API is in verification/test_c_program.py, TensorFlow Serving's protocol in server/, Beam's RunInference in
tests/pipelines.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from savedmodels.bundle import ARRAYS
from savedmodels.export import ExportOptions, export
from savedmodels.graph_ops import read_saved_model
from savedmodels.wire.examples import serialize_example
from tests.savedmodels.small_model import SPEC, columnar, features
from tfdlrm.config import DLRMConfig
from tfdlrm.models.dlrm import DLRM


class Exported(NamedTuple):
    """An export, a batch for its signature `predict`, and what `tf.saved_model.load` answers."""

    folder: str
    inputs: dict[str, tf.Tensor]
    outputs: dict[str, np.ndarray]


def exported(model: DLRM, spec: Any, folder: Path, batch: dict[str, Any], quantize: str = "none") -> Exported:
    options = ExportOptions(candidates=("last items",), quantize=quantize)
    path = str(export(model, folder, spec=spec, options=options))
    inputs = {name: tf.convert_to_tensor(value) for name, value in columnar(batch).items()}
    outputs = tf.saved_model.load(path).signatures["predict"](**inputs)
    return Exported(path, inputs, {name: value.numpy() for name, value in outputs.items()})


@pytest.fixture(scope="module")
def full(model: DLRM, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(model, SPEC, tmp_path_factory.mktemp("full"), features(5))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Without a hashed column."""
    kept = tuple(column for column in SPEC.categorical if column.name != "query")
    sizes = {name: size for name, size in SPEC.vocabulary_sizes.items() if name != "query"}
    spec = replace(SPEC, categorical=kept, vocabulary_sizes=sizes)
    model = DLRM(DLRMConfig.from_schema(spec, embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)))
    model.build()
    batch = {name: value for name, value in features(5).items() if name != "query"}
    return exported(model, spec, tmp_path_factory.mktemp("plain"), batch)


def test_every_variable_has_its_shape_in_the_graph(full: Exported) -> None:
    (meta_graph,) = read_saved_model(full.folder).meta_graphs
    in_graph = {
        node.attr["shared_name"].s.decode(): [dim.size for dim in node.attr["shape"].shape.dim]
        for node in meta_graph.graph_def.node
        if node.op == "VarHandleOp"
    }
    in_objects = {
        node.variable.name: [dim.size for dim in node.variable.shape.dim]
        for node in meta_graph.object_graph_def.nodes
        if node.WhichOneof("kind") == "variable"
    }
    assert in_graph == in_objects
    assert len(in_graph) > 5
    loaded = tf.saved_model.load(full.folder)
    assert {variable.name.split(":")[0] for variable in getattr(loaded, ARRAYS).values()} <= set(in_graph)
    for function in loaded.signatures.values():
        for variable in function.variables:
            shape = in_graph[variable.name.split(":")[0]]
            assert shape == variable.shape.as_list() == list(variable.numpy().shape)


def test_kerass_layer_for_saved_models(full: Exported) -> None:
    loaded = tf.saved_model.load(full.folder)
    predict = keras.layers.TFSMLayer(full.folder, call_endpoint="predict")
    np.testing.assert_array_equal(predict(full.inputs)["probability"], full.outputs["probability"])
    embed = keras.layers.TFSMLayer(full.folder, call_endpoint="embed")
    expected = loaded.signatures["embed"](**full.inputs)["embeddings"]
    np.testing.assert_array_equal(embed(full.inputs)["embeddings"], expected)
    rank = keras.layers.TFSMLayer(full.folder, call_endpoint="rank")
    sides = {**full.inputs, "k": tf.constant(2)}
    for name in loaded.signatures["rank"].structured_input_signature[1]:
        if not name.startswith("last_items") and name != "k":  # one user
            sides[name] = _first_row(full.inputs, name)
    expected = loaded.signatures["rank"](**sides)
    assert rank(sides)["top_index"].numpy().tolist() == expected["top_index"].numpy().tolist()
    example = {"dense": [0.5, 1.0], "user": 3, "last items": [1, 2, 3], "query": 9}
    examples = tf.constant([serialize_example(example)])
    served = keras.layers.TFSMLayer(full.folder, call_endpoint="serving_default")
    expected = loaded.signatures["serving_default"](examples)["probability"]
    np.testing.assert_array_equal(served(examples)["probability"], expected)


def _first_row(inputs: dict[str, tf.Tensor], name: str) -> tf.Tensor:
    base = name.removesuffix("_weights")
    if f"{base}_row_lengths" in inputs:
        return inputs[name][: int(inputs[f"{base}_row_lengths"][0])]
    return inputs[name][:1]


def test_a_keras_model_on_top_is_trained_and_saved(full: Exported, tmp_path: Path) -> None:
    inputs = {
        name: keras.Input(tuple(value.shape[1:]), dtype=value.dtype.name, name=name)
        for name, value in full.inputs.items()
    }
    layer = keras.layers.TFSMLayer(full.folder, call_endpoint="predict", trainable=False)
    model = keras.Model(inputs, keras.layers.Dense(1, name="score")(layer(inputs)["logit"]))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model.predict_on_batch(full.inputs)
    for _ in range(3):
        model.train_on_batch(full.inputs, np.ones([5, 1], np.float32))
    after = model.predict_on_batch(full.inputs)
    assert np.square(after - 1).mean() < np.square(before - 1).mean()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    np.testing.assert_allclose(again.predict_on_batch(full.inputs), after, rtol=1e-6)
    # the export's own weights are as they were
    np.testing.assert_array_equal(layer(full.inputs)["probability"], full.outputs["probability"])


def test_a_frozen_graph(full: Exported) -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(full.folder)
    function = loaded.signatures["predict"]
    frozen = convert_variables_to_constants_v2(function)
    assert not {node.op for node in frozen.graph.as_graph_def().node} & {"VarHandleOp", "ReadVariableOp"}
    names = [tensor.name for tensor in function.outputs]
    assert len(names) == len(frozen.outputs) == len(full.outputs)
    for name, value in zip(sorted(full.outputs), frozen(**full.inputs), strict=True):
        np.testing.assert_allclose(value, full.outputs[name], rtol=1e-6)


@pytest.mark.multiprocess
def test_saved_model_cli(full: Exported, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", **{name: value.numpy() for name, value in full.inputs.items()})
    given = ";".join(f"{name}={tmp_path / 'rows.npz'}[{name}]" for name in full.inputs)
    which = ["--dir", full.folder, "--tag_set", "serve", "--signature_def", "predict"]
    program = str(Path(sys.executable).with_name("saved_model_cli"))
    subprocess.run([program, "run", *which, "--inputs", given, "--outdir", tmp_path], check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "probability.npy"), full.outputs["probability"])
    shown = subprocess.run([program, "show", *which], check=True, capture_output=True, text=True).stdout
    assert all(f"inputs['{name}'] tensor_info" in shown for name in full.inputs)


@pytest.mark.multiprocess
def test_onnx_runtime(full: Exported, tmp_path: Path) -> None:
    import onnxruntime

    file = tmp_path / "model.onnx"
    flags = ["--saved-model", full.folder, "--signature_def", "predict", "--opset", "18", "--output", str(file)]
    subprocess.run([sys.executable, "-m", "tf2onnx.convert", *flags], check=True, capture_output=True)
    session = onnxruntime.InferenceSession(str(file))
    feeds = {each.name: full.inputs[each.name].numpy() for each in session.get_inputs()}
    assert set(feeds) == set(full.inputs)
    for name, value in zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True):
        np.testing.assert_allclose(value, full.outputs[name], rtol=1e-5, atol=1e-6)


def test_tflite(plain: Exported) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(plain.folder, signature_keys=["predict"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    with pytest.warns(UserWarning, match="LiteRT"):
        interpreter = tf.lite.Interpreter(model_content=converter.convert())
    run = interpreter.get_signature_runner("predict")
    answer = run(**{name: value.numpy() for name, value in plain.inputs.items()})
    np.testing.assert_allclose(answer["probability"], plain.outputs["probability"], rtol=1e-6, atol=1e-6)
