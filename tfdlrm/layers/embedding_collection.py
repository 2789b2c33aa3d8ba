"""The Keras face of the embedding engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.stateless_scope import in_stateless_scope
from tensorflow.python.eager import record

from tfdlrm.checks import quoted
from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.lookup import GroupLayout, LookupPlan
from tfdlrm.embeddings.optimizers import RowOptimizer, row_optimizer_from_dict, row_optimizer_to_dict
from tfdlrm.embeddings.placement.base import Residual
from tfdlrm.embeddings.recording import LookupRecorder, current_recorder
from tfdlrm.embeddings.tables import EmbeddingTables
from tfdlrm.layers.quotient_remainder import combine
from tfdlrm.layers.stock_model import current_stock_step, install
from tfdlrm.layers.table_variable import load_arrays, make_anchor, save_arrays, table_variables, unrecorded_gradient
from tfdlrm.layers.tracking import scope_name, track_lists
from tfdlrm.native.custom_gradient import custom_gradient

_COUNTS = "id_policy_counts"


@keras.saving.register_keras_serializable(package="tfdlrm")
class EmbeddingCollection(keras.layers.Layer):
    """Looks up and pools the embedding bags of many features at once, and trains their tables.

    Tables are weights of the layer, one a table, for everything that Keras does with weights; but the engine holds
    and trains them, each training step updates only the rows that the batch touched, and the Keras optimizer keeps
    no state of them. Works in functional, Sequential and subclassed models under `compile` and `fit`: fully in
    `tfdlrm.Model`; in a plain `keras.Model` with loss scaling, gradient accumulation and global clipping refused.
    Evaluation and `trainable = False` never update tables. A `tf.GradientTape` or `train_step` of your own needs
    `tfdlrm.embeddings.recording.record_lookups`, and says so where it does without.

    Input: a dict feature name -> ids, `[B]`, `[B, H]`, `RaggedTensor` or `SparseTensor`, int32, int64 or string, or
    `(ids, weights)`; or all features of fixed hotness side by side as one `[B, sum of H]` integer matrix.
    Output: `[B, F, D]` in the compute dtype (rows themselves are always float32), features in the order given, or
    with `output="dict"` a dict feature name -> `[B, D_f]`.

    Args:
        features: `FeatureConfig`s, in order, whose `table` is a `TableConfig` or the name of one in `tables`.
        tables: `TableConfig`s that features name; or leave out where features carry them.
        optimizer: row optimizer of tables that have none of their own; default `RowwiseAdagrad()`. One without a
            learning rate follows the dense optimizer's.
        output: "stacked" or "dict".
        seed: of the initial values.
        share_tables_with: another collection whose tables this one looks up as well; they are updated together,
            once a step. Then `tables` and `optimizer` must be left out.

    Raises:
        ValueError: tables or features that do not fit together, each named.

    Example:
        >>> item = TableConfig(name="item", vocabulary_size=1000, embedding_dim=16)
        >>> layer = EmbeddingCollection([FeatureConfig(name="clicked", table=item, hotness=None),
        ...                              FeatureConfig(name="shown", table=item)])
        >>> layer({"clicked": tf.ragged.constant([[1, 2], []]), "shown": tf.constant([5, 6])}).shape
        TensorShape([2, 2, 16])
    """

    def __init__(
        self,
        features: Sequence[FeatureConfig],
        tables: Sequence[TableConfig] | None = None,
        optimizer: RowOptimizer | None = None,
        *,
        output: str = "stacked",
        seed: int = 0,
        share_tables_with: EmbeddingCollection | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        if output not in ("stacked", "dict"):
            raise ValueError(f"layer {quoted(self.name)}: output={quoted(output)} is unknown. Use 'stacked' or 'dict'.")
        if share_tables_with is not None and (tables is not None or optimizer is not None):
            raise ValueError(
                f"layer {quoted(self.name)}: tables and optimizer are {quoted(share_tables_with.name)}'s. Drop them."
            )
        shared = None if share_tables_with is None else share_tables_with.tables
        known = shared.configs if shared else {table.name: table for table in tables or ()}
        self.features = _resolve(self.name, features, dict(known), may_add=tables is None and not share_tables_with)
        self.output_form = output
        self.seed = seed
        self._source = share_tables_with
        self._tables = shared or EmbeddingTables(tables or _tables_of(self.features), optimizer, seed=seed)
        self._optimizer = optimizer
        self._widths = [_table(feature).output_width for feature in self.features]
        if output == "stacked" and len(set(self._widths)) > 1:
            widths = {feature.name: width for feature, width in zip(self.features, self._widths, strict=True)}
            raise ValueError(
                f"layer {quoted(self.name)}: vectors differ in width: {widths}. Set output_dim on the narrower tables "
                "(mixed dimension), or use output='dict'."
            )
        # the engine's gathers and in-place updates do not run under XLA; dense layers may still be compiled
        self.supports_jit = False
        self._not_loaded: ValueError | None = None  # why `load_own_variables` failed
        self.projections: dict[str, keras.Variable] = {}

    @property
    def tables(self) -> EmbeddingTables:
        """The engine's tables: rows by name, assignment, slices, the plan."""
        return self._tables

    @property
    def id_policy_counts(self) -> dict[str, int]:
        """Ids that "clip", "modulo" or "oov" had to change in training, a feature, since the layer was built."""
        return {f.name: int(c) for f, c in zip(self.features, self._read_counts(), strict=True)}

    def _read_counts(self) -> Any:
        return tf.convert_to_tensor(self._policy_counts).numpy()

    def build(self, input_shape: Any = None) -> None:
        del input_shape
        if self._source is not None:
            if not self._source.built:
                self._source.build()
            # its weights are the source's, through which tapes reach the tables
            self._anchor: tf.Variable = self._source._anchor
        else:
            self._tables.build()
            self._anchor = make_anchor()
            self._table_variables = table_variables(self._tables, self._anchor, f"layer {quoted(self.name)}")
            for variable in self._table_variables:
                self._track_variable(variable)
        with tf.init_scope():
            self._policy_counts = tf.Variable(
                tf.zeros([len(self.features)], tf.int64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
                name="id_policy_counts",
            )
        for table in {_table(feature).name: _table(feature) for feature in self.features}.values():
            if table.output_dim is not None and table.output_dim != table.embedding_dim:
                self.projections[table.name] = self.add_weight(
                    shape=(table.embedding_dim, table.output_dim),
                    initializer=keras.initializers.GlorotUniform(seed=self.seed),
                    name=f"{scope_name(table.name)}_projection",
                )
        track_lists(self, projections=self.projections)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        del training
        # worked out anew for each trace: an export has its rows elsewhere
        plan = self._tables.lookup_plan(self.features)
        layouts, counts = plan.groups(inputs, as_bags=self._tables.takes_bags)
        found = self._tables.lookup_all([layout.group for layout in layouts])
        pooled = [vectors for vectors, _ in found]
        # as an Embedding: whether `training` is said or not, whoever asks for gradients trains
        if self._trains():
            pooled = self._attach(pooled, [residual for _, residual in found], counts)
        return self._assemble(plan, layouts, pooled)

    def pooled(self, inputs: Mapping[str, Any]) -> tf.Tensor | dict[str, tf.Tensor]:
        """Inference for some of the features: as a call, with the features that `inputs` has, in this layer's order.

        Args:
            inputs: feature name -> ids, as in a call.

        Returns:
            `[B, n, D]` for n features, or a dict where the layer gives one.

        Raises:
            ValueError: `inputs` has none of the features.
        """
        features = [feature for feature in self.features if feature.name in inputs]
        if not features:
            raise ValueError(f"layer {quoted(self.name)}: the inputs have none of its features. Give at least one.")
        plan = self._tables.lookup_plan(features)
        layouts, _ = plan.groups(inputs, as_bags=self._tables.takes_bags)
        found = self._tables.lookup_all([layout.group for layout in layouts])
        return self._assemble(plan, layouts, [vectors for vectors, _ in found])

    def _trains(self) -> bool:
        """Whether lookups are to update tables.

        Raises:
            ValueError: some tables were frozen one by one.
        """
        if not self.trainable:
            return False
        owner = self._source or self
        flags = {v.trainable for v in owner._table_variables if v.trains}
        if len(flags) == 2:
            frozen = [v.name for v in owner._table_variables if v.trains and not v.trainable]
            raise ValueError(
                f"layer {quoted(self.name)}: the weights of tables {frozen} were frozen, and those of others were not. "
                "Freeze the layer, or give those tables TableConfig(trainable=False)."
            )
        return flags == {True}

    def _count(self, recorder: LookupRecorder | None, counts: tf.Tensor) -> None:
        if all(feature.id_policy in ("error", "hash") for feature in self.features):
            return
        if recorder is not None and recorder.stateless:
            recorder.policy_counts.append((self._policy_counts, counts))
        else:
            self._policy_counts.assign_add(counts)

    def _attach(self, pooled: list[tf.Tensor], residuals: list[Residual], counts: tf.Tensor) -> list[tf.Tensor]:
        """Ties the pooled vectors to whoever is training, if anybody is."""
        recorder = current_recorder()
        if in_stateless_scope() and not (recorder and recorder.stateless):
            # Keras is inferring shapes in a scratch graph, perhaps from inside a training step
            return pooled
        step = current_stock_step()
        if recorder is not None or step is not None:
            self._count(recorder, counts)
        if recorder is not None:
            anchor = None if recorder.stateless else self._anchor
            return [recorder.record(self._tables, r, p, anchor) for r, p in zip(residuals, pooled, strict=True)]
        if step is not None:
            step.claim(self._tables, self.name, (self._source or self)._table_variables)
        elif not record.could_possibly_record():
            return pooled  # no tape is open

        @custom_gradient
        def anchored(anchor: tf.Tensor) -> Any:
            def update(*gradients: tf.Tensor) -> tf.Tensor:
                if step is None:
                    return unrecorded_gradient(f"layer {quoted(self.name)}")
                optimizer = step.model.optimizer
                pairs = list(zip(residuals, gradients, strict=True))
                self._tables.update(pairs, learning_rate=tf.convert_to_tensor(optimizer.learning_rate))
                return tf.zeros_like(anchor)

            return [tf.identity(p) for p in pooled], update

        return anchored(tf.convert_to_tensor(self._anchor))

    def _assemble(self, plan: LookupPlan, layouts: list[GroupLayout], pooled: list[tf.Tensor]) -> Any:
        vectors = plan.assemble(layouts, pooled)
        plain = not isinstance(vectors, list) and not self.projections and len(plan.columns) == len(plan.features)
        if plain and self.output_form == "stacked":
            return tf.cast(vectors, self.compute_dtype)
        if not isinstance(vectors, list):
            vectors = tf.unstack(vectors, axis=1)
        vectors = [tf.cast(vector, self.compute_dtype) for vector in vectors]
        outputs, position = [], 0
        for feature in plan.features:
            table = _table(feature)
            if table.split is not None:
                vector = combine(table.split.operation, vectors[position], vectors[position + 1])
                position += 2
            else:
                vector = vectors[position]
                position += 1
            if table.name in self.projections:
                kernel = tf.cast(tf.convert_to_tensor(self.projections[table.name]), self.compute_dtype)
                vector = tf.matmul(vector, kernel)
            outputs.append(vector)
        if self.output_form == "stacked":
            return tf.stack(outputs, axis=1)
        return {feature.name: vector for feature, vector in zip(plan.features, outputs, strict=True)}

    def compute_output_shape(self, input_shape: Any) -> Any:
        first = input_shape
        while isinstance(first, Mapping) or (isinstance(first, (tuple, list)) and isinstance(first[0], (tuple, list))):
            first = next(iter(first.values())) if isinstance(first, Mapping) else first[0]
        batch = first[0] if first is not None and len(first) else None
        if self.output_form == "stacked":
            return (batch, len(self.features), self._widths[0])
        return {feature.name: (batch, width) for feature, width in zip(self.features, self._widths, strict=True)}

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        del training
        first = inputs
        while isinstance(first, (Mapping, tuple, list)):
            first = next(iter(first.values())) if isinstance(first, Mapping) else first[0]
        shapes = self.compute_output_shape(None if first.shape is None else tuple(first.shape))
        if self.output_form == "stacked":
            return keras.KerasTensor(shapes, dtype=self.compute_dtype)
        return {name: keras.KerasTensor(shape, dtype=self.compute_dtype) for name, shape in shapes.items()}

    def save_own_variables(self, store: Any) -> None:
        """Rows, the state of their row optimizers, projections and counts, each under its name."""
        store[_COUNTS] = self._read_counts()
        save_arrays(store, self._own_tables, self.projections)

    def load_own_variables(self, store: Any) -> None:
        """What `save_own_variables` wrote; everything is compared before anything is overwritten.

        Raises:
            ValueError: of another model; names the table, and both shapes.
        """
        if not self.built:
            raise ValueError(f"layer {quoted(self.name)} was never built and has no tables yet. Call the model once.")
        if self._not_loaded is not None and not list(store.keys()):
            # Keras tries again by other paths to a layer that failed, under which the file has nothing
            raise self._not_loaded
        try:
            load_arrays(store, self._own_tables, self.projections, owner=f"layer {quoted(self.name)}", others={_COUNTS})
        except ValueError as error:
            self._not_loaded = error
            raise
        self._not_loaded = None
        self._policy_counts.assign(store[_COUNTS])

    @property
    def _own_tables(self) -> EmbeddingTables | None:
        """The tables, unless another collection holds them."""
        return self._tables if self._source is None else None

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "features": [dataclasses.replace(f, table=_table(f).name).to_dict() for f in self.features],
            "output": self.output_form,
            "seed": self.seed,
        }
        if self._source is not None:
            return {**config, "share_tables_with": keras.saving.serialize_keras_object(self._source)}
        return {
            **config,
            "tables": [table.to_dict() for table in self._tables.configs.values()],
            "optimizer": serialize_row_optimizer(self._optimizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingCollection:
        config = dict(config)
        config["features"] = [FeatureConfig.from_dict(feature) for feature in config["features"]]
        if config.get("share_tables_with") is not None:
            config["share_tables_with"] = keras.saving.deserialize_keras_object(config["share_tables_with"])
        else:
            config["tables"] = [TableConfig.from_dict(table) for table in config["tables"]]
            config["optimizer"] = deserialize_row_optimizer(config["optimizer"])
        return cls(**config)


def _table(feature: FeatureConfig) -> TableConfig:
    assert isinstance(feature.table, TableConfig)
    return feature.table


def _tables_of(features: Sequence[FeatureConfig]) -> list[TableConfig]:
    return list({_table(feature).name: _table(feature) for feature in features}.values())


def _resolve(
    layer: str, features: Sequence[FeatureConfig], known: dict[str, TableConfig], *, may_add: bool
) -> tuple[FeatureConfig, ...]:
    """Features whose `table` is the config itself, checked against the tables given."""
    if not features and may_add:
        raise ValueError(f"layer {quoted(layer)}: features is empty. Give at least one FeatureConfig.")
    resolved, names = [], set()
    for feature in features:
        table = feature.table
        if isinstance(table, TableConfig):
            if may_add:
                known.setdefault(table.name, table)
            if known.get(table.name) != table:
                raise ValueError(
                    f"layer {quoted(layer)}: feature {quoted(feature.name)} brings a table "
                    f"{quoted(table.name)} that differs from the "
                    "one given under that name. Use one TableConfig for both, or another name."
                )
        elif table in known:
            feature = dataclasses.replace(feature, table=known[table])
        else:
            raise ValueError(
                f"layer {quoted(layer)}: feature {quoted(feature.name)} names table "
                f"{quoted(table)}, not in {sorted(known)}."
            )
        if feature.name in names:
            raise ValueError(f"layer {quoted(layer)}: feature {quoted(feature.name)} is there twice. Rename one.")
        names.add(feature.name)
        resolved.append(feature)
    return tuple(resolved)


def serialize_row_optimizer(optimizer: RowOptimizer | None) -> dict[str, Any] | None:
    """As `row_optimizer_to_dict`, and a Keras schedule as Keras writes it."""
    if optimizer is None:
        return None
    if not isinstance(optimizer.learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return row_optimizer_to_dict(optimizer)
    plain = row_optimizer_to_dict(dataclasses.replace(optimizer, learning_rate=None))
    return {**plain, "learning_rate": keras.saving.serialize_keras_object(optimizer.learning_rate)}


def deserialize_row_optimizer(config: dict[str, Any] | None) -> RowOptimizer | None:
    """Inverse of `serialize_row_optimizer`."""
    if config is None:
        return None
    rate = config.get("learning_rate")
    if not isinstance(rate, dict):
        return row_optimizer_from_dict(config)
    optimizer = row_optimizer_from_dict({**config, "learning_rate": None})
    return dataclasses.replace(optimizer, learning_rate=keras.saving.deserialize_keras_object(rate))


# here, not where tfdlrm's own models are: a plain keras.Model is trained without ever importing those
install(lambda layer: isinstance(layer, EmbeddingCollection))
