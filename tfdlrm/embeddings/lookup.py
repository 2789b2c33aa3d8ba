"""From a batch's features to id groups of stacks, and from pooled groups back to one vector a feature.

A `LookupPlan` belongs to a list of features and one trace; the graph has one gather for all features that share a
stack, a form (fixed or ragged) and a hotness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.bags import BagGroup, FlatBags, bag_group, flat_bags, from_bags, in_order
from tfdlrm.embeddings.ids import Bags, apply_policy, check_range, refuse_strings, signed, to_bags
from tfdlrm.embeddings.placement.base import IdGroup
from tfdlrm.embeddings.planner import QUOTIENT, REMAINDER, ShardingPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One stored table that one feature reads: a feature on a quotient-remainder table has two."""

    feature: FeatureConfig
    table: TableConfig
    part: str
    stack: int
    offset: int
    stack_rows: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupLayout:
    """Which columns a group's bags hold, in order: bag `b * len(columns) + k` is row b of `columns[k]`."""

    columns: tuple[int, ...]
    group: IdGroup | BagGroup


class LookupPlan:
    """Features, in order, over the tables of one plan.

    Args:
        features: feature configs; `feature.table` is a `TableConfig`.
        plan: where the stored tables are.
    """

    def __init__(self, features: Sequence[FeatureConfig], plan: ShardingPlan):
        self.features = tuple(features)
        columns = []
        for feature in self.features:
            table = feature.table
            assert isinstance(table, TableConfig)
            for part in (QUOTIENT, REMAINDER) if table.split is not None else ("",):
                stack, offset = plan.locate(table.name + part)
                rows = plan.stacks[stack].num_rows
                columns.append(
                    Column(feature=feature, table=table, part=part, stack=stack, offset=offset, stack_rows=rows)
                )
        self.columns = tuple(columns)
        self._one_id_each = all(
            column.feature.hotness == 1
            and column.feature.id_policy == "error"
            and not column.part
            and (column.stack, column.table.combiner) == (columns[0].stack, columns[0].table.combiner)
            for column in columns
        )

    def groups(
        self, inputs: Mapping[str, Any] | tf.Tensor, *, as_bags: bool = False
    ) -> tuple[list[GroupLayout], tf.Tensor]:
        """Checked id groups, and `[num_features]` int64 counts of ids that a policy had to change.

        Args:
            inputs: feature name -> ids; or all features side by side as `[B, sum of hotness]`, in order.
            as_bags: `BagGroup`s, for a placement that takes them, in place of `IdGroup`s.

        Raises:
            ValueError: a feature is missing from `inputs`, or the packed matrix has another width.
        """
        if not isinstance(inputs, Mapping):
            inputs = self._unpack(tf.convert_to_tensor(inputs))
        for feature in self.features:
            if feature.name not in inputs:
                raise ValueError(
                    f"feature {quoted(feature.name)} is missing from the inputs, which have {sorted(inputs)}. "
                    "Add the column, or remove the feature from the model."
                )
        inputs = {feature.name: self._signed(feature, inputs[feature.name]) for feature in self.features}
        return self._bag_groups(inputs) if as_bags else self._id_groups(inputs)

    @staticmethod
    def _signed(feature: FeatureConfig, value: Any) -> Any:
        table = feature.table
        assert isinstance(table, TableConfig)
        return signed(value, feature.id_policy, table.vocabulary_size, feature.name, table.name)

    def _bag_groups(self, inputs: Mapping[str, Any]) -> tuple[list[GroupLayout], tf.Tensor]:
        flat: dict[str, FlatBags] = {}
        for feature in self.features:
            table = feature.table
            assert isinstance(table, TableConfig)
            value = in_order(inputs[feature.name])
            one = flat_bags(feature, value) or from_bags(to_bags(feature.name, value, feature.hotness))
            refuse_strings(one.ids, feature.id_policy, feature.name, table.name)
            flat[feature.name] = one
        members: dict[Any, list[int]] = {}
        for index, column in enumerate(self.columns):
            members.setdefault((column.stack, column.table.combiner), []).append(index)
        layouts, counts = [], {}
        for indices in members.values():
            columns = [self.columns[index] for index in indices]
            group, changed = bag_group(columns, [flat[column.feature.name] for column in columns])
            layouts.append(GroupLayout(columns=tuple(indices), group=group))
            for position, column in enumerate(columns):
                counts[column.feature.name] = changed[position]
        if len(layouts) == 1 and len(self.columns) == len(self.features):
            return layouts, changed
        return layouts, tf.stack([counts[feature.name] for feature in self.features])

    def _id_groups(self, inputs: Mapping[str, Any]) -> tuple[list[GroupLayout], tf.Tensor]:
        bags: dict[str, Bags] = {}
        counts = []
        for feature in self.features:
            table = feature.table
            assert isinstance(table, TableConfig)
            one = to_bags(feature.name, inputs[feature.name], feature.hotness)
            one, count = apply_policy(one, feature.id_policy, table.vocabulary_size, feature.name, table.name)
            bags[feature.name] = one
            counts.append(tf.constant(0, tf.int64) if count is None else count)
        if self._one_id_each and _alike(list(bags.values())):
            return [self._one_id_group(inputs, [bags[f.name] for f in self.features])], tf.stack(counts)
        self._check(bags)
        return [self._group(members, bags) for members in self._members(bags)], tf.stack(counts)

    def _unpack(self, packed: tf.Tensor) -> dict[str, tf.Tensor]:
        widths = [feature.hotness or 0 for feature in self.features]
        ragged = [feature.name for feature in self.features if feature.hotness is None]
        if ragged:
            raise ValueError(
                f"features {ragged} are ragged and cannot be packed in one matrix. Pass a dict of features."
            )
        if packed.shape.rank != 2 or packed.shape[1] != sum(widths):
            raise ValueError(
                f"packed ids have shape {packed.shape}; the {len(widths)} features need [B, {sum(widths)}]. "
                "Give one column an id, features in order, or pass a dict of features."
            )
        parts = tf.split(packed, widths, axis=1)
        return {feature.name: part for feature, part in zip(self.features, parts, strict=True)}

    def _one_id_group(self, inputs: Mapping[str, Any], bags: Sequence[Bags]) -> GroupLayout:
        """The common case, one id a feature and one stack for all, without an op a feature."""
        first = self.columns[0]
        given = [inputs[feature.name] for feature in self.features]
        if all(tf.is_tensor(one) and one.shape.rank == 1 and one.dtype == bags[0].ids.dtype for one in given):
            ids = tf.stack(given, axis=1)  # nobody reads the bags' own `[B, 1]`, which a graph drops then
        else:
            ids = bags[0].ids if len(bags) == 1 else tf.concat([one.ids for one in bags], axis=1)
        ids = check_range(ids, _describe(self.features), None)
        dtype = _row_dtype(first)
        ids = tf.cast(ids, dtype) + tf.constant([column.offset for column in self.columns], dtype)
        group = IdGroup(
            stack=first.stack,
            ids=tf.reshape(ids, [-1]),
            hotness=1,
            bag_index=None,
            weights=None,
            num_bags=bags[0].batch_size * len(bags),
            combiner=first.table.combiner,
        )
        return GroupLayout(columns=tuple(range(len(bags))), group=group)

    def _check(self, bags: dict[str, Bags]) -> None:
        """Replaces the ids of features with policy "error" by ids that are known to be in range."""
        fixed: dict[tf.DType, list[FeatureConfig]] = {}
        for feature in self.features:
            if feature.id_policy != "error":
                continue
            one = bags[feature.name]
            if one.row_ids is None:
                fixed.setdefault(one.ids.dtype, []).append(feature)
            else:
                bags[feature.name] = one._replace(ids=check_range(one.ids, _describe([feature]), one.row_ids))
        for features in fixed.values():
            widths = [bags[f.name].ids.shape[1] for f in features]
            described = [d for f, w in zip(features, widths, strict=True) for d in _describe([f]) * w]
            ids = [bags[f.name].ids for f in features]
            checked = check_range(ids[0] if len(ids) == 1 else tf.concat(ids, axis=1), described, None)
            for feature, part in zip(features, tf.split(checked, widths, axis=1), strict=True):
                bags[feature.name] = bags[feature.name]._replace(ids=part)

    def _members(self, bags: dict[str, Bags]) -> list[tuple[int, ...]]:
        grouped: dict[Any, list[int]] = {}
        for index, column in enumerate(self.columns):
            one = bags[column.feature.name]
            key = (column.stack, one.hotness, one.weights is not None, column.table.combiner)
            grouped.setdefault(key, []).append(index)
        return [tuple(members) for members in grouped.values()]

    def _group(self, members: tuple[int, ...], bags: dict[str, Bags]) -> GroupLayout:
        columns = [self.columns[index] for index in members]
        ones = [bags[column.feature.name] for column in columns]
        num_columns = len(columns)
        batch_size = ones[0].batch_size
        dtype = _row_dtype(columns[0])
        ids = [_stack_rows(one.ids, column, dtype) for one, column in zip(ones, columns, strict=True)]
        weights, bag_index = None, None
        hotness = ones[0].hotness
        if hotness is not None:
            flat = tf.reshape(tf.stack(ids, axis=1) if num_columns > 1 else ids[0], [-1])
            if ones[0].weights is not None:
                weights = tf.reshape(tf.stack([one.weights for one in ones], axis=1), [-1])
        else:
            flat = tf.concat(ids, axis=0)
            bags_of = [tf.convert_to_tensor(one.row_ids) * num_columns for one in ones]
            bag_index = tf.concat([bags + k for k, bags in enumerate(bags_of)], axis=0)
            if ones[0].weights is not None:
                weights = tf.concat([one.weights for one in ones], axis=0)
        group = IdGroup(
            stack=columns[0].stack,
            ids=flat,
            hotness=hotness,
            bag_index=bag_index,
            weights=weights,
            num_bags=batch_size * num_columns,
            combiner=columns[0].table.combiner,
        )
        return GroupLayout(columns=members, group=group)

    def assemble(self, layouts: Sequence[GroupLayout], pooled: Sequence[tf.Tensor]) -> list[tf.Tensor] | tf.Tensor:
        """Pooled groups `[B * F_g, D]` or `[B, F_g, D]` -> one vector a column.

        Returns:
            `[B, C, D]` where the groups hold the columns in order (one group: no copy), else a list of `[B, D_c]`.
        """
        if len(layouts) == 1:
            columns = len(layouts[0].columns)
            if pooled[0].shape.rank == 3:
                return pooled[0]
            return tf.reshape(pooled[0], [-1, columns, pooled[0].shape[-1]])
        widths = {block.shape[-1] for block in pooled}
        if len(widths) == 1 and [c for layout in layouts for c in layout.columns] == list(range(len(self.columns))):
            (width,) = widths
            blocks = zip(layouts, pooled, strict=True)
            return tf.concat([tf.reshape(p, [-1, len(layout.columns), width]) for layout, p in blocks], axis=1)
        vectors: list[Any] = [None] * len(self.columns)
        for layout, block in zip(layouts, pooled, strict=True):
            parts = tf.unstack(tf.reshape(block, [-1, len(layout.columns), block.shape[-1]]), axis=1)
            for index, part in zip(layout.columns, parts, strict=True):
                vectors[index] = part
        return vectors


def _alike(bags: Sequence[Bags]) -> bool:
    """Whether all are one unweighted id a row, of one dtype."""
    return all(one.hotness == 1 and one.weights is None and one.ids.dtype == bags[0].ids.dtype for one in bags)


def _row_dtype(column: Column) -> tf.DType:
    return tf.int64 if column.stack_rows > tf.int32.max else tf.int32


def _describe(features: Sequence[FeatureConfig]) -> list[tuple[str, str, int]]:
    described = []
    for feature in features:
        table = feature.table
        assert isinstance(table, TableConfig)
        described.append((feature.name, table.name, table.vocabulary_size))
    return described


def _stack_rows(ids: tf.Tensor, column: Column, dtype: tf.DType) -> tf.Tensor:
    """Ids of a feature -> rows of its stack."""
    compression = column.table.split
    if column.part and compression is not None:
        # integer division: the reference divides floats, which loses ids above 2^24
        divisor = tf.constant(compression.collisions, ids.dtype)
        ids = ids // divisor if column.part == QUOTIENT else tf.math.floormod(ids, divisor)
    ids = tf.cast(ids, dtype)
    return ids + tf.constant(column.offset, dtype) if column.offset else ids
