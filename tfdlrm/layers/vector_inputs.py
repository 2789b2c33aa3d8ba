"""What the interaction layers take: the dense vector beside the pooled vectors, stacked or one by one.

    [x, e]             x [B, D], e [B, F, D]
    [x, [e1, .., eF]]  each [B, D]
    [x, e1, .., eF]    each [B, D]

The dense vector is index 0, the features follow in the order given.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdlrm.checks import quoted

Shape = tuple[int | None, ...]


def vector_sizes(owner: str, input_shape: Any) -> list[tuple[int, ...]]:
    """The shapes behind the batch, in order, whatever their nesting: (D,), and (F, D) for a stacked e.

    Args:
        owner: the layer's name, for messages.
        input_shape: what Keras passes to `build`; after deserialization, lists in place of tuples.

    Raises:
        ValueError: a shape is neither `[B, D]` nor, in second place of two, `[B, F, D]`, or a width is unknown.
    """
    shapes = _flatten_shapes(input_shape)
    ranks = [len(shape) for shape in shapes]
    good = bool(ranks) and (all(rank == 2 for rank in ranks) or ranks == [2, 3])
    sizes = [tuple(size for size in shape[1:] if size is not None) for shape in shapes]
    if not good or any(len(known) != rank - 1 for known, rank in zip(sizes, ranks, strict=True)):
        raise ValueError(
            f"layer {quoted(owner)}: inputs of shapes {shapes} cannot be combined. Give [x, e] with x [B, D] and "
            "e [B, F, D], or [x, e1, .., eF] with each [B, D]; only B may be unknown."
        )
    return sizes


def num_vectors_and_width(owner: str, input_shape: Any) -> tuple[int, int]:
    """(F + 1, D) of inputs whose vectors are equally wide.

    Raises:
        ValueError: the widths differ.
    """
    sizes = vector_sizes(owner, input_shape)
    widths = [size[-1] for size in sizes]
    if len(set(widths)) > 1:
        raise ValueError(
            f"layer {quoted(owner)}: the dense vector has width {widths[0]}, the features {widths[1:]}. Make the last "
            "unit of the bottom MLP and the features' embedding_dim equal."
        )
    return sum(size[0] if len(size) == 2 else 1 for size in sizes), widths[0]


def batch_size(input_shape: Any) -> int | None:
    """B of the inputs, None where it is unknown."""
    return _flatten_shapes(input_shape)[0][0]


def stack_vectors(inputs: Any) -> tf.Tensor:
    """All vectors as rows, `[B, F + 1, D]`."""
    tensors = tf.nest.flatten(inputs)
    if tensors[-1].shape.rank == 3:
        return tf.concat([tensors[0][:, tf.newaxis, :], tensors[1]], axis=1)
    return tf.stack(tensors, axis=1)


def feature_vectors(inputs: Any) -> tf.Tensor:
    """All vectors but the dense one, `[B, F, D]`."""
    tensors = tf.nest.flatten(inputs)
    if tensors[-1].shape.rank == 3:
        return tensors[1]
    if len(tensors) == 1:
        return tensors[0][:, tf.newaxis, :][:, :0]
    return tf.stack(tensors[1:], axis=1)


def join_vectors(inputs: Any) -> tf.Tensor:
    """All vectors side by side, `[B, sum of widths]`."""
    tensors = tf.nest.flatten(inputs)
    if tensors[-1].shape.rank == 3:
        _, num_features, width = tensors[1].shape
        # of nothing, -1 may be any number of rows
        tensors[1:] = [tf.reshape(tensors[1], [-1, num_features * width])] if num_features else []
    return tf.concat(tensors, axis=1)


def pad_columns(owner: str, padding: int) -> int:
    """`padding` as a checked multiple.

    Raises:
        ValueError: it is not a whole number of 1 or more.
    """
    if padding != int(padding) or padding < 1:
        raise ValueError(
            f"layer {quoted(owner)}: padding={quoted(padding)} is not a multiple. Give 1 (no padding) or more."
        )
    return int(padding)


def padded_width(width: int, padding: int) -> int:
    """The next multiple of `padding`: matrix units like widths that are multiples of 8 or 64."""
    return -(-width // padding) * padding


def pad_to(x: tf.Tensor, width: int) -> tf.Tensor:
    """Zeros to the right of `[B, n]` until it is `[B, width]`."""
    missing = width - x.shape[-1]
    return tf.pad(x, [[0, 0], [0, missing]]) if missing else x


def _flatten_shapes(shape: Any) -> list[Shape]:
    if all(size is None or isinstance(size, int) for size in shape):
        return [tuple(shape)]
    return [leaf for part in shape for leaf in _flatten_shapes(part)]
