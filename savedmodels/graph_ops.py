"""What a `saved_model.pb` says, read without loading it: the ops of its graph and its signatures.

Imports nothing of this repository: the fresh process of `verify`, which cannot, loads this file by its path.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SAVED_MODEL_FILE = "saved_model.pb"
SERVE_TAG = "serve"
INITIALIZATION = "__saved_model_init_op"  # TensorFlow's own entry among the signatures


def exported_ops(version_folder: str | os.PathLike[str]) -> frozenset[str]:
    """Names of every op in a SavedModel, those inside functions included.

    Raises:
        FileNotFoundError: there is no `saved_model.pb`.
        ValueError: it cannot be read.

    Example:
        >>> "ResourceGather" in exported_ops("exports/clicks/1")
        True
    """
    names: set[str] = set()
    for meta_graph in read_saved_model(version_folder).meta_graphs:
        graph = meta_graph.graph_def
        names.update(node.op for node in graph.node)
        functions = {function.signature.name for function in graph.library.function}
        names.update(node.op for function in graph.library.function for node in function.node_def)
        names -= functions  # a call written with the function's name as its op
    return frozenset(names)


def foreign_ops(version_folder: str | os.PathLike[str]) -> list[str]:
    """Ops in a SavedModel that stock TensorFlow does not have, sorted; a server could not load it.

    Raises:
        FileNotFoundError, ValueError: as for `exported_ops`.
    """
    import tensorflow as tf

    # raw_ops is generated when TensorFlow is built: ops of a library loaded later are not in it
    return sorted(op for op in exported_ops(version_folder) if not hasattr(tf.raw_ops, op))


def signatures(version_folder: str | os.PathLike[str]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """The signatures of a SavedModel, sorted by name, in a form that JSON can hold.

    Returns:
        Signature -> `inputs` and `outputs` -> name -> `dtype`, `shape` (None: any size; a shape of None: any rank)
        and `tensor`, its name in the graph.

    Raises:
        FileNotFoundError, ValueError: as for `exported_ops`; ValueError as well where no graph is for serving.

    Example:
        >>> signatures("exports/clicks/1")["predict"]["inputs"]["user"]
        {'dtype': 'int64', 'shape': [None], 'tensor': 'predict_user:0'}
    """
    for meta_graph in read_saved_model(version_folder).meta_graphs:
        if SERVE_TAG in meta_graph.meta_info_def.tags:
            return {
                name: {"inputs": _tensors(signature.inputs), "outputs": _tensors(signature.outputs)}
                for name, signature in sorted(meta_graph.signature_def.items())
                if name != INITIALIZATION
            }
    raise ValueError(f"{Path(version_folder) / SAVED_MODEL_FILE} has no graph tagged {SERVE_TAG!r}. Export it again.")


def _tensors(infos: Any) -> dict[str, dict[str, Any]]:
    import tensorflow as tf

    return {
        name: {
            "dtype": tf.dtypes.as_dtype(info.dtype).name,
            "shape": tf.TensorShape(info.tensor_shape).as_list() if not info.tensor_shape.unknown_rank else None,
            "tensor": info.name,
        }
        for name, info in sorted(infos.items())
    }


def read_saved_model(version_folder: str | os.PathLike[str]) -> Any:
    """The `SavedModel` proto of a version, be it in text.

    Raises:
        FileNotFoundError: there is no `saved_model.pb`.
        ValueError: it cannot be read.
    """
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(version_folder) / SAVED_MODEL_FILE
    text = path.with_suffix(".pbtxt")
    saved = saved_model_pb2.SavedModel()
    try:
        if path.is_file():
            saved.ParseFromString(path.read_bytes())
        elif text.is_file():
            path = text
            text_format.Parse(text.read_text(encoding="utf-8"), saved)
        else:
            raise FileNotFoundError(f"{path} is missing. Export the model again.")
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {str(error)[:200]}. Export the model again.") from error
    if not saved.meta_graphs:
        raise ValueError(f"{path} holds no graph. Export the model again.")
    return saved
