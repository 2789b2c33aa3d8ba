"""Feature inputs of any accepted form -> checked ids in bags.

Accepted for one feature: `[B]` or `[B, H]` integers or strings, `tf.RaggedTensor` `[B, None]`,
`tf.SparseTensor` `[B, K]`, each alone or as `(ids, weights)` with weights of the same form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.hashing import hash_to_buckets


class Bags(NamedTuple):
    """Ids of one feature.

    Either `ids` is `[B, H]` with static H and `row_ids` is None, or `ids` is `[N]` and `row_ids` `[N]` says
    which row of the batch each id belongs to. `weights` is None or has the shape of `ids`, float32.
    """

    ids: tf.Tensor
    row_ids: tf.Tensor | None
    weights: tf.Tensor | None
    batch_size: tf.Tensor | int

    @property
    def hotness(self) -> int | None:
        return None if self.row_ids is not None else self.ids.shape[1]


def to_bags(feature: str, value: Any, hotness: int | None) -> Bags:
    """Normalizes one feature's input.

    Args:
        feature: its name, for errors.
        value: ids, or `(ids, weights)`.
        hotness: ids a bag by the feature's config; None for ragged.

    Raises:
        TypeError: ids are neither integers nor strings.
        ValueError: a rank, hotness or weight shape that does not fit.
    """
    ids, weights = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, None)
    if isinstance(ids, tf.SparseTensor):
        return _from_sparse(feature, ids, weights)
    if isinstance(ids, tf.RaggedTensor):
        return _from_ragged(feature, ids, weights)
    if isinstance(weights, (tf.SparseTensor, tf.RaggedTensor)):
        raise ValueError(
            f"feature {quoted(feature)}: weights are {type(weights).__name__} but ids are dense. Use one form."
        )
    ids = check_dtype(feature, tf.convert_to_tensor(ids))
    if ids.shape.rank == 1:
        ids = ids[:, tf.newaxis]
        weights = None if weights is None else tf.reshape(weights, tf.shape(ids))
    if ids.shape.rank != 2 or ids.shape[1] is None:
        raise ValueError(
            f"feature {quoted(feature)}: dense ids have shape {ids.shape}. Pass [B] or [B, H] with a static H, or a "
            "RaggedTensor [B, None]."
        )
    if hotness is not None and ids.shape[1] != hotness:
        raise ValueError(
            f"feature {quoted(feature)}: {ids.shape[1]} ids a row, but its config says hotness={hotness}. "
            "Change FeatureConfig.hotness (None for bags of any length) or the data."
        )
    if weights is not None:
        weights = tf.cast(weights, tf.float32)
        if not weights.shape.is_compatible_with(ids.shape):
            raise ValueError(f"feature {quoted(feature)}: weights {weights.shape} do not match ids {ids.shape}.")
        weights = tf.ensure_shape(weights, ids.shape)
    static = ids.shape[0]
    return Bags(ids, None, weights, tf.shape(ids)[0] if static is None else static)


def signed(value: Any, policy: str, vocabulary_size: int, feature: str, table: str) -> Any:
    """uint64 ids as int64 ones that the policy maps to the same row; ids of other types pass.

    An id of 2^63 or more has no int64. What stands for it is out of range as well, and so is counted: the largest int64
    for "clip", a number with the same remainder for "modulo", the same bits for "hash" and "oov".

    Args:
        value: ids of a feature, or `(ids, weights)`.
        policy: of the feature.
        vocabulary_size: V.
        feature, table: for errors.

    Raises:
        tf.errors.InvalidArgumentError: at run time: such an id under the policy "error".
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return signed(value[0], policy, vocabulary_size, feature, table), value[1]
    if getattr(value, "dtype", None) not in (tf.uint64, "uint64"):
        return value
    if isinstance(value, tf.RaggedTensor):
        return value.with_flat_values(signed(value.flat_values, policy, vocabulary_size, feature, table))
    if isinstance(value, tf.SparseTensor):
        return value.with_values(signed(value.values, policy, vocabulary_size, feature, table))
    ids = tf.convert_to_tensor(value)
    same_bits = tf.bitcast(ids, tf.int64)
    if policy == "clip":
        return tf.where(same_bits < 0, tf.int64.max, same_bits)
    if policy == "modulo":
        remainder = tf.cast(tf.math.floormod(ids, tf.constant(vocabulary_size, tf.uint64)), tf.int64)
        return tf.where(same_bits < 0, remainder + vocabulary_size * (2**62 // vocabulary_size), same_bits)
    if policy == "error":

        def words() -> list[Any]:
            return [
                f"feature '{feature}' (table '{table}'): id ",
                tf.strings.as_string(tf.reduce_max(ids)),
                f" is outside [0, {vocabulary_size}). Fix the data, or choose another id_policy than 'error'.",
            ]

        return stop_if(same_bits < 0, words, same_bits)
    return same_bits


def check_dtype(feature: str, ids: tf.Tensor) -> tf.Tensor:
    """Ids as int32, int64 or string.

    Raises:
        TypeError: they are neither integers nor strings.
    """
    if ids.dtype in (tf.int32, tf.int64, tf.string):
        return ids
    if ids.dtype.is_integer:
        return tf.cast(ids, tf.int64)
    raise TypeError(
        f"feature {quoted(feature)}: ids have dtype {ids.dtype.name}"
        f"{'; floats corrupt ids above 2^24' if ids.dtype.is_floating else ''}. Pass int32, int64 or "
        "string ids; in a Keras model declare the input with keras.Input(..., dtype='int64')."
    )


def _from_ragged(feature: str, ids: tf.RaggedTensor, weights: Any) -> Bags:
    if ids.ragged_rank != 1 or ids.flat_values.shape.rank != 1:
        raise ValueError(
            f"feature {quoted(feature)}: ragged ids have ragged_rank={ids.ragged_rank} and rank {ids.shape.rank}. "
            "Pass one bag a row: [B, None]."
        )
    if weights is not None:
        if not isinstance(weights, tf.RaggedTensor):
            raise ValueError(f"feature {quoted(feature)}: ids are ragged but weights are not. Use the same row splits.")
        same = tf.debugging.assert_equal(
            ids.row_splits,
            tf.cast(weights.row_splits, ids.row_splits.dtype),
            message=f"feature {quoted(feature)}: the row splits of ids and weights differ.",
        )
        with tf.control_dependencies([same] if same is not None else []):
            weights = tf.cast(tf.identity(weights.flat_values), tf.float32)
    values = check_dtype(feature, ids.flat_values)
    return Bags(values, tf.cast(ids.value_rowids(), tf.int32), weights, tf.cast(ids.nrows(), tf.int32))


def _from_sparse(feature: str, ids: tf.SparseTensor, weights: Any) -> Bags:
    if ids.shape.rank not in (None, 2):
        raise ValueError(
            f"feature {quoted(feature)}: sparse ids have rank {ids.shape.rank}. Pass [B, K], one bag a row."
        )
    if weights is not None:
        if not isinstance(weights, tf.SparseTensor):
            raise ValueError(f"feature {quoted(feature)}: ids are sparse but weights are not. Use the same indices.")
        same = tf.debugging.assert_equal(
            ids.indices,
            weights.indices,
            message=f"feature {quoted(feature)}: the indices of ids and weights differ.",
        )
        with tf.control_dependencies([same] if same is not None else []):
            weights = tf.cast(tf.identity(weights.values), tf.float32)
    values = check_dtype(feature, ids.values)
    return Bags(values, tf.cast(ids.indices[:, 0], tf.int32), weights, tf.cast(ids.dense_shape[0], tf.int32))


def apply_policy(
    bags: Bags, policy: str, vocabulary_size: int, feature: str, table: str
) -> tuple[Bags, tf.Tensor | None]:
    """Makes ids valid rows of the table, by the feature's policy.

    Returns:
        The bags and, for "clip", "modulo" and "oov", how many ids were out of range (int64 scalar); None for
        "hash", which has no such notion, and for "error", which is checked by `check_range`.

    Raises:
        TypeError: string ids under a policy other than "hash".
    """
    ids = bags.ids
    if policy == "hash":
        return bags._replace(ids=hash_to_buckets(ids, vocabulary_size)), None
    refuse_strings(ids, policy, feature, table)
    if policy == "error":
        return bags, None
    size = tf.constant(vocabulary_size, tf.int64)
    wide = tf.cast(ids, tf.int64)
    outside = (wide < 0) | (wide >= size)
    count = tf.math.count_nonzero(outside, dtype=tf.int64)
    if policy == "clip":
        fixed = tf.clip_by_value(wide, 0, size - 1)
    elif policy == "modulo":
        fixed = tf.math.floormod(wide, size)
    elif policy == "oov":
        fixed = tf.where(outside, tf.zeros_like(wide), wide)
    else:
        raise ValueError(
            f"feature {quoted(feature)}: id_policy={quoted(policy)} is unknown. Use error, clip, modulo, oov or hash."
        )
    return bags._replace(ids=tf.cast(fixed, ids.dtype)), count


def refuse_strings(ids: tf.Tensor, policy: str, feature: str, table: str) -> None:
    """Raises TypeError for string ids under a policy other than "hash"."""
    if ids.dtype == tf.string and policy != "hash":
        raise TypeError(
            f"feature {quoted(feature)} (table {quoted(table)}): ids are strings but id_policy is {quoted(policy)}. "
            "Use id_policy='hash', or map strings to ids with a vocabulary first."
        )


def check_range(ids: tf.Tensor, columns: list[tuple[str, str, int]], row_ids: tf.Tensor | None) -> tf.Tensor:
    """Passes ids through, or stops the step with the feature, the table, the id and the row of the batch.

    Args:
        ids: `[B, C]`, column c belonging to `columns[c]`; or `[N]` with `row_ids` `[N]` and a single column.
        columns: (feature, table, vocabulary_size) a column.
        row_ids: for ragged ids.

    Raises:
        tf.errors.InvalidArgumentError: at run time.
    """
    sizes = [size for _, _, size in columns]
    limit = tf.constant(sizes if row_ids is None else sizes[0], tf.int64)
    if ids.dtype == tf.int32:
        limit = tf.cast(tf.minimum(limit, tf.int32.max), tf.int32)
    outside = (ids < 0) | (ids >= limit)

    def words() -> list[Any]:
        where = tf.where(outside)[0]
        column = tf.constant(0, tf.int64) if row_ids is not None else where[1]
        row = tf.gather(row_ids, where[0]) if row_ids is not None else where[0]
        return [
            "feature '", tf.gather([c[0] for c in columns], column),
            "' (table '", tf.gather([c[1] for c in columns], column),
            "'): id ", tf.strings.as_string(tf.gather_nd(ids, where)),
            " in row ", tf.strings.as_string(row), " of the batch is outside [0, ",
            tf.strings.as_string(tf.gather(tf.constant(sizes, tf.int64), column)),
            "). Fix the data, raise vocabulary_size, or choose id_policy 'clip', 'modulo', 'oov' or 'hash'.",
        ]  # fmt: skip

    return stop_if(outside, words, ids)


def stop_if(wrong: tf.Tensor, words: Callable[[], list[Any]], values: tf.Tensor) -> tf.Tensor:
    """Passes values on, or stops the step, or the request.

    Args:
        wrong: bool, of any shape; one true element stops.
        words: makes the message, strings and string scalars one after the other; called, or run, only where it is said.
        values: of any shape.

    Raises:
        tf.errors.InvalidArgumentError: at run time.
    """

    def stop() -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(words())])]):
            return tf.constant(False)

    any_wrong = wrong if wrong.shape.rank == 0 else tf.reduce_any(wrong)  # of a scalar it is two ops for nothing
    if tf.executing_eagerly():
        if any_wrong:
            stop()
        return values
    with tf.control_dependencies([tf.cond(any_wrong, stop, lambda: tf.constant(True))]):
        return tf.identity(values)
