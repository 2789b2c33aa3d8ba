"""The files of a SavedModel's variables, written anew with large arrays in them, chunk by chunk.

TensorFlow writes a SavedModel with all its variables in memory. Those of the tables are empty then
(`savedmodels.serving_rows`); here the bundle is made again: what TensorFlow wrote, and each array in contiguous row
ranges; and the graph is told their shapes. The same bytes come out for the same arrays, whoever gives them: a live
model, or an earlier export and a delta.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from savedmodels.graph_ops import SAVED_MODEL_FILE, read_saved_model
from savedmodels.serving_rows import StoredArray
from tfdlrm.checks import quoted
from tfdlrm.embeddings.checkpoint import merge_parts, write_parts
from tfdlrm.embeddings.placement.base import TableSlice

ARRAYS = "arrays"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def variables_prefix(version_folder: Path) -> str:
    """Of the bundle's files."""
    return str(version_folder / "variables" / "variables")


def array_key(name: str) -> str:
    """Where the bundle keeps an array of the module's dict `ARRAYS`."""
    return f"{ARRAYS}/{name}{_SUFFIX}"


def fill_variables(version_folder: Path, arrays: Iterable[StoredArray]) -> None:
    """Writes the content of variables that TensorFlow saved empty.

    Args:
        version_folder: as `tf.saved_model.save` left it.
        arrays: the content of every variable in the module's dict `ARRAYS`.

    Raises:
        ValueError: an array has no variable, or a variable no array.
        OSError: the disk is full or read-only.
    """
    prefix = variables_prefix(version_folder)
    reader = tf.train.load_checkpoint(prefix)
    saved = reader.get_variable_to_shape_map()
    small = {key: reader.get_tensor(key) for key in sorted(saved) if not key.startswith(f"{ARRAYS}/")}
    arrays = list(arrays)
    missing = {key for key in saved if key.startswith(f"{ARRAYS}/")} ^ {array_key(array.name) for array in arrays}
    if missing:
        raise ValueError(
            f"{version_folder}: {sorted(missing)} are either not variables or not given. This is a defect."
        )
    del reader
    write_bundle(prefix, small, arrays)
    _write_shapes(version_folder, {array.name: (array.rows, array.width) for array in arrays})


def _write_shapes(version_folder: Path, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Says in the graph how many rows the variables of the dict `ARRAYS` have: they were empty when it was traced.

    TensorFlow does without; Keras's own layer for SavedModels, and converters, want every variable's shape.
    """
    saved = read_saved_model(version_folder)
    for meta_graph in saved.meta_graphs:
        nodes = meta_graph.object_graph_def.nodes
        (holder,) = (child.node_id for child in nodes[0].children if child.local_name == ARRAYS)
        named = {}  # as variables are called in the graph
        for child in nodes[holder].children:
            variable = nodes[child.node_id].variable
            _set_sizes(variable.shape, shapes[child.local_name])
            named[variable.name] = shapes[child.local_name]
        for node in meta_graph.graph_def.node:
            name = node.attr["shared_name"].s.decode() if node.op == "VarHandleOp" else ""
            if name in named:
                _set_sizes(node.attr["shape"].shape, named[name])
    (version_folder / SAVED_MODEL_FILE).write_bytes(saved.SerializeToString(deterministic=True))


def _set_sizes(shape: Any, sizes: tuple[int, int]) -> None:
    for dim, size in zip(shape.dim, sizes, strict=True):
        dim.size = size


def write_bundle(prefix: str, small: dict[str, Any], arrays: Iterable[StoredArray]) -> None:
    """Replaces the bundle.

    Args:
        prefix: of its files.
        small: key -> value, of what is not an array.
        arrays: large ones.
    """
    folder = Path(prefix).parent
    old = list(folder.iterdir())
    scalars = {key: tf.constant(value) for key, value in small.items()}
    arrays = list(arrays)
    # of an array without rows there is no row range to write
    scalars.update({array_key(a.name): tf.zeros([0, a.width], a.dtype) for a in arrays if not a.rows})
    parts = write_parts(f"{prefix}.new", _slices(array for array in arrays if array.rows), scalars=scalars)
    for file in old:
        file.unlink()
    merge_parts(parts, prefix)


def _slices(arrays: Iterable[StoredArray]) -> Iterator[TableSlice]:
    for array in arrays:
        yield TableSlice(
            name=array_key(array.name),
            total=array.rows,
            width=array.width,
            start=0,
            stop=array.rows,
            read=lambda start, stop, array=array: tf.constant(array.read(start, stop)),
            write=None,
            row_bytes=array.width * array.dtype.size,
        )


def stored_array(prefix: str, name: str) -> StoredArray:
    """An array of a bundle, read back row range by row range.

    Raises:
        KeyError: the bundle has no such array.
    """
    key = array_key(name)
    reader = tf.train.load_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    if key not in shapes:
        raise KeyError(f"{prefix}: no array {quoted(name)} there. It is of another model.")
    (rows, width), dtype = shapes[key], dtypes[key]

    def read(start: int, stop: int) -> np.ndarray:
        spec = f"{rows} {width} {start},{stop - start}:0,{width}"
        (values,) = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=[key], shape_and_slices=[spec], dtypes=[dtype])
        return values.numpy()

    return StoredArray(name=name, rows=rows, width=width, dtype=dtype, read=read)


def small_values(prefix: str) -> dict[str, Any]:
    """What a bundle holds beside arrays."""
    reader = tf.train.load_checkpoint(prefix)
    keys = sorted(key for key in reader.get_variable_to_shape_map() if not key.startswith(f"{ARRAYS}/"))
    return {key: reader.get_tensor(key) for key in keys}
