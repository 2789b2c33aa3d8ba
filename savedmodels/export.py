"""A trained model as a SavedModel that stock TensorFlow loads: no custom ops, no Python, no optimizer state.

    OUT/
      1/                      a version, TensorFlow Serving's layout; appears whole or not at all
        saved_model.pb
        variables/
      2/

Signature `serving_default`, columnar tensors in, `probability` and `logit` `[B, tasks]` float32 out:

    dense                     float32 [B, num_dense], as the reader delivers them (transformed)
    <feature>                 int64 [B], or [B, H] for H ids a bag
    <feature>                 int64 [N] for bags of any length, all bags one after another, beside
    <feature>_row_lengths     int64 [B], ids of each bag
    <feature>_weights         float32, the shape of the ids, where the schema gives ids weights

TensorFlow allows letters, digits and `_` in these names; `input_name` says what becomes of others.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfdlrm.config import DLRMConfig
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import FeatureSpec

SIGNATURE = "serving_default"
ROW_LENGTHS = "_row_lengths"
WEIGHTS = "_weights"
SAVED_MODEL_FILE = "saved_model.pb"


def export(
    model: DLRM, path: str | os.PathLike[str], *, spec: FeatureSpec | None = None, version: int | None = None
) -> Path:
    """Writes a model as the next numbered version below a folder.

    Args:
        model: a built model.
        path: the folder of all versions; made where it does not exist.
        spec: the schema the model was trained on; needed where ids have weights.
        version: default: one more than the highest there.

    Returns:
        The version's folder.

    Raises:
        ValueError: the model is not built, the version is not a positive number, two inputs would have one name, or
            the model holds an op that stock TensorFlow does not have.
        FileExistsError: the version is there already.

    Example:
        >>> folder = export(model, "exports/clicks")
        >>> tf.saved_model.load(str(folder)).signatures["serving_default"](**inputs)["probability"]
    """
    if not model.built:
        raise ValueError(f"model {model.name!r} is not built, so it has no weights to export. Train or load it first.")
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    number = _version(path, version)
    target, partial = (
        path / str(number),
        path / f".{number}.{os.getpid()}",
    )  # TensorFlow Serving looks at numbers only
    function = serving_function(model, spec)
    module = tf.Module()
    # Exactly what the function reads: no optimizer, no slots, nothing that only training needs.
    module.variables_read = list(function.variables)
    try:
        tf.saved_model.save(module, str(partial), signatures={SIGNATURE: function})
        _refuse_custom_ops(model, partial)
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _version(path: Path, version: int | None) -> int:
    present = [int(entry.name) for entry in path.iterdir() if entry.name.isdecimal()]
    if version is None:
        return max(present, default=0) + 1
    if version < 1:
        raise ValueError(f"version={version} is not possible. Give 1 or more.")
    if version in present:
        raise FileExistsError(
            f"{path / str(version)} is there already. Give another version, or none for the next one."
        )
    return version


def input_name(feature: str) -> str:
    """The name of a feature in the signature: characters that TensorFlow does not allow there become `_`.

    Example:
        >>> input_name("hour of day"), input_name("user"), input_name("2nd")
        ('hour_of_day', 'user', 'feature_2nd')
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", feature)
    # "self" cannot be passed by name to a Python function, which a loaded signature is
    return name if name[0].isalpha() and name != "self" else f"feature_{name}"


def input_specs(config: DLRMConfig, spec: FeatureSpec | None = None) -> dict[str, tf.TensorSpec]:
    """The inputs of the signature, by name.

    Raises:
        ValueError: two inputs would have one name.
    """
    weighted = _weighted(spec)
    specs = {"dense": tf.TensorSpec([None, config.num_dense], tf.float32, name="dense")}
    for feature in config.features:
        name = input_name(feature.name)
        shape = [None] if feature.hotness in (None, 1) else [None, feature.hotness]
        inputs = {name: (shape, tf.int64)}
        if feature.hotness is None:
            inputs[name + ROW_LENGTHS] = ([None], tf.int64)
        if feature.name in weighted:
            inputs[name + WEIGHTS] = (shape, tf.float32)
        for each, (shape, dtype) in inputs.items():
            if each in specs:
                raise ValueError(
                    f"feature {feature.name!r} gives the signature an input {each!r}, which another one has given "
                    "already. Rename the feature."
                )
            specs[each] = tf.TensorSpec(shape, dtype, name=each)
    return specs


def serving_function(model: DLRM, spec: FeatureSpec | None = None) -> Any:
    """The traced function behind the signature: named columnar tensors -> `probability` and `logit`."""
    config, weighted = model.config, _weighted(spec)

    @tf.function(autograph=False)
    def serve(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        features = {"dense": inputs["dense"]}
        for feature in config.features:
            name = input_name(feature.name)
            ids, weights = inputs[name], inputs.get(name + WEIGHTS)
            if feature.hotness is None:
                ids = _bags(name, ids, inputs[name + ROW_LENGTHS], tf.shape(inputs["dense"], tf.int64)[0])
                weights = None if weights is None else ids.with_flat_values(weights)
            features[feature.name] = (ids, weights) if feature.name in weighted else ids
        logit = tf.cast(model(features, training=False), tf.float32)  # [B, tasks]
        return {"probability": tf.sigmoid(logit), "logit": logit}

    return serve.get_concrete_function(input_specs(config, spec))


def _bags(name: str, values: tf.Tensor, lengths: tf.Tensor, batch_size: tf.Tensor) -> tf.RaggedTensor:
    lengths_name = name + ROW_LENGTHS
    checks = [
        tf.debugging.assert_equal(
            tf.reduce_sum(lengths),
            tf.size(values, tf.int64),
            message=f"input {lengths_name!r} does not add up to the number of ids in {name!r}.",
        ),
        tf.debugging.assert_equal(
            tf.size(lengths, tf.int64),
            batch_size,
            message=f"input {lengths_name!r} has not one number for each row of 'dense'.",
        ),
        tf.debugging.assert_non_negative(lengths, message=f"input {lengths_name!r} holds a negative number."),
    ]
    with tf.control_dependencies(checks):
        return tf.RaggedTensor.from_row_lengths(tf.identity(values), tf.identity(lengths), validate=False)


def _weighted(spec: FeatureSpec | None) -> frozenset[str]:
    return frozenset(column.name for column in spec.categorical if column.weights) if spec else frozenset()


def exported_ops(version_folder: str | os.PathLike[str]) -> frozenset[str]:
    """Names of every op in a SavedModel, those inside functions included."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((Path(version_folder) / SAVED_MODEL_FILE).read_bytes())
    names: set[str] = set()
    for meta_graph in saved.meta_graphs:
        graph = meta_graph.graph_def
        names.update(node.op for node in graph.node)
        functions = {function.signature.name for function in graph.library.function}
        names.update(node.op for function in graph.library.function for node in function.node_def)
        names -= functions  # a call written with the function's name as its op
    return frozenset(names)


def _refuse_custom_ops(model: DLRM, version_folder: Path) -> None:
    # raw_ops is generated when TensorFlow is built: ops of a library loaded later are not in it
    foreign = sorted(op for op in exported_ops(version_folder) if not hasattr(tf.raw_ops, op))
    if foreign:
        raise ValueError(
            f"model {model.name!r}: the export holds ops that stock TensorFlow does not have: {', '.join(foreign)}. "
            "Replace the layers that use them."
        )
