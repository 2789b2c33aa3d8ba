"""A `keras.Model` whose training step also updates embedding tables."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src.models.functional import Functional

from tfdlrm.embeddings.recording import LookupRecorder, record_lookups
from tfdlrm.embeddings.tables import EmbeddingTables
from tfdlrm.layers.embedding_collection import EmbeddingCollection
from tfdlrm.layers.stock_model import inner_optimizer, keep_tables_from, refuse_averages
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.native.custom_gradient import forget_gradients
from tfdlrm.native.scope import native_kernels

Tensors = list[tf.Tensor | None]


@keras.saving.register_keras_serializable(package="tfdlrm")
class Model(keras.Model):
    """`keras.Model` for models with `EmbeddingCollection` layers, in functional or subclassed form.

    The training step owns the tape: pooled vectors are leaves of it, so one backward pass gives the gradients of
    the dense weights and of everything that was looked up. Several lookups of the same tables are summed and the
    tables are updated once. Loss scaling, gradient accumulation (`gradient_accumulation_steps`) and clipping by
    global norm (`global_clipnorm`, over dense weights and tables together) of the Keras optimizer hold for tables
    too; `clipnorm` and `clipvalue` concern single dense weights (tables: `RowOptimizer.clipnorm`).

    Example:
        >>> ids = keras.Input((3,), dtype="int64")
        >>> vectors = EmbeddingCollection(features, optimizer=RowwiseAdagrad(0.1))(ids)
        >>> logits = keras.layers.Dense(1)(keras.layers.Flatten()(vectors))
        >>> model = Model(ids, logits)
        >>> model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Model and _is_functional(args, kwargs):
            return super().__new__(FunctionalModel)
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        if _is_functional(args, kwargs) and not isinstance(self, FunctionalModel):
            # Keras would now rewrite the bases of this class and of Model itself, for every model of the process
            raise TypeError(
                f"{type(self).__name__}: a subclass that passes inputs and outputs on must derive from "
                "tfdlrm.models.FunctionalModel, not tfdlrm.Model."
            )
        super().__init__(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`, also under `tfdlrm.distribute.parameter_server`, where Keras's own refuses."""
        loop = training_loop_of(self)
        return super().fit(*args, **kwargs) if loop is None else loop.fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, under every strategy."""
        loop = training_loop_of(self)
        return super().evaluate(*args, **kwargs) if loop is None else loop.evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`, under every strategy."""
        loop = training_loop_of(self)
        return super().predict(*args, **kwargs) if loop is None else loop.predict(*args, **kwargs)

    def _check_compiled(self) -> None:
        """Refuses options that cannot be honoured; `layers.stock_model` calls it, and knows the class by it."""
        refuse_averages(self, self.optimizer)
        keep_tables_from(self.optimizer)
        loop = training_loop_of(self)
        if loop is not None:
            loop.check_compiled()

    def train_step(self, data: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape, record_lookups(tape, native=not self.jit_compile) as recorder:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            rows = tf.shape(next(leaf for leaf in tf.nest.flatten(x) if leaf is not None))[0]
            # Keras divides the loss by the number of replicas; the tracker shows the loss itself
            self._loss_tracker.update_state(loss * self.distribute_strategy.num_replicas_in_sync, sample_weight=rows)
            scaled = self.optimizer.scale_loss(loss)
        weights = dense_weights(self.trainable_weights)
        dense, pooled = tape.gradient(scaled, [weights, recorder.leaves])
        if weights and not self.optimizer.built:
            self.optimizer.build(weights)
        dense = update_tables(self.optimizer, recorder, pooled, dense, weights)
        if weights:
            self.optimizer.apply(dense, weights)
        forget_gradients()
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> Any:
        with native_kernels(not self.jit_compile):
            return super().test_step(data)

    def predict_step(self, data: Any) -> Any:
        with native_kernels(not self.jit_compile):
            return super().predict_step(data)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds from what one replica's batches look like, and reads none.

        Keras reads a batch and drops the iterator while TensorFlow still reads ahead with it, which can crash the
        process (docs/decisions/0010-mirrored-input.md); it then takes the mean of the replicas' batches, which turns
        ids into float32.
        """
        if self._distribute_strategy is not None and iterator is not None:
            spec = iterator._distributed_dataset.element_spec
            data_batch = tf.nest.map_structure(lambda one: getattr(one, "_value_specs", (one,))[0], spec)
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)


@keras.saving.register_keras_serializable(package="tfdlrm")
class FunctionalModel(Model, Functional):
    """What `tfdlrm.Model(inputs, outputs)` makes; derive from it for a functional model with methods of your own."""

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        Functional.__init__(self, inputs, outputs, name=name, **kwargs)


def training_loop_of(model: keras.Model) -> Any:
    """The training loop of a strategy that has its own, or None."""
    make = getattr(model.distribute_strategy, "training_loop", None)
    return None if make is None else make(model)


def _is_functional(args: tuple, kwargs: dict[str, Any]) -> bool:
    return len(args) == 2 or (len(args) == 1 and "outputs" in kwargs) or {"inputs", "outputs"} <= kwargs.keys()


def collections_of(model: keras.Model) -> list[EmbeddingCollection]:
    """The embedding collections of a model, in order."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, EmbeddingCollection)]


def tables_of(model: keras.Model) -> list[EmbeddingTables]:
    """The tables of a model, each once though collections may share them."""
    return list({id(layer.tables): layer.tables for layer in collections_of(model)}.values())


def update_tables(
    optimizer: keras.optimizers.Optimizer,
    recorder: LookupRecorder,
    pooled: Tensors,
    dense: Tensors,
    weights: list,
) -> Tensors:
    """Updates all tables that were looked up, once each, with what the Keras optimizer asks for.

    Args:
        optimizer: the model's, possibly a `LossScaleOptimizer`.
        recorder: the lookups of this step.
        pooled: gradients of the recorder's leaves, of the scaled loss.
        dense: gradients of `weights`, of the scaled loss.
        weights: the dense weights.

    Returns:
        The dense gradients to apply: as they came, or clipped together with the tables', or made NaN where a table's
        gradient is not finite, so that a `LossScaleOptimizer` skips the step for both.
    """
    inner = inner_optimizer(optimizer)
    steps = inner.gradient_accumulation_steps or 1
    scaled = optimizer is not inner or bool(inner.loss_scale_factor)
    unscale = 1.0 / tf.cast(optimizer.scale_loss(tf.constant(1.0)), tf.float32) if scaled else None
    if unscale is not None:
        pooled = [None if g is None else tf.cast(g, tf.float32) * unscale for g in pooled]
    groups = [(tables, tables.gradients(pairs)) for tables, pairs in recorder.by_tables(pooled)]
    if not groups:
        return dense
    hold, condition, factor = None, None, None
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if steps > 1 and inner.global_clipnorm and replicas > 1:
        raise ValueError(
            f"{type(inner).__name__}: gradient_accumulation_steps={steps} together with "
            f"global_clipnorm={inner.global_clipnorm} is not supported on {replicas} replicas. Drop one of them."
        )
    if steps > 1:
        hold = tf.convert_to_tensor(inner._iterations + 1) % steps != 0
        for tables, _ in groups:
            tables.placement.prepare_holding()
    if optimizer is not inner:
        condition = _all_finite([*pooled, *dense])
        dense = [None if g is None else tf.where(condition, g, tf.cast(float("nan"), g.dtype)) for g in dense]
    if inner.global_clipnorm:
        totals = _dense_totals(inner, dense, weights, unscale, steps)
        squared = tf.add_n([tables.squared_norm(g, average_over=steps) for tables, g in groups])
        norm = tf.sqrt(squared + tf.add_n([tf.nn.l2_loss(g) * 2 for g in _summed_over_replicas(totals)] or [0.0]))
        clips = norm > inner.global_clipnorm
        if hold is not None:
            clips = clips & ~hold
        factor = tf.where(clips, inner.global_clipnorm / norm, 1.0)
        dense = _clipped(inner, dense, weights, unscale, steps, factor)
    rate = tf.convert_to_tensor(inner.learning_rate)
    for tables, gradients in groups:
        tables.apply(gradients, learning_rate=rate, factor=factor, condition=condition, hold=hold, average_over=steps)
    return dense


def _all_finite(tensors: Tensors) -> tf.Tensor:
    """Whether all gradients of all replicas are finite."""
    bad = tf.add_n([tf.math.count_nonzero(~tf.math.is_finite(g), dtype=tf.int32) for g in tensors if g is not None])
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        bad = context.all_reduce(tf.distribute.ReduceOp.SUM, bad)
    return bad == 0


def _summed_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or not tensors:
        return tensors
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def _accumulator(inner: keras.optimizers.Optimizer, weight: Any) -> tf.Tensor:
    return tf.convert_to_tensor(inner._accumulated_gradients[inner._get_variable_index(weight)])


def _dense_totals(
    inner: keras.optimizers.Optimizer, dense: Tensors, weights: list, unscale: tf.Tensor | None, steps: int
) -> list[tf.Tensor]:
    """The gradients that the dense update would be made of: unscaled, accumulated, averaged."""
    totals = []
    for gradient, weight in zip(dense, weights, strict=True):
        if gradient is None:
            continue
        total = tf.cast(gradient, tf.float32) * (1.0 if unscale is None else unscale)
        totals.append(total if steps == 1 else (total + tf.cast(_accumulator(inner, weight), tf.float32)) / steps)
    return totals


def _clipped(
    inner: keras.optimizers.Optimizer,
    dense: Tensors,
    weights: list,
    unscale: tf.Tensor | None,
    steps: int,
    factor: tf.Tensor,
) -> Tensors:
    """Dense gradients whose accumulated average comes out multiplied by `factor`.

    Keras adds what it has accumulated inside `apply`, so with accumulation the new gradient g becomes
    factor (g + a) - a for the accumulated a. Keras then clips by the dense norm alone, which is below the limit.
    """
    clipped = []
    for gradient, weight in zip(dense, weights, strict=True):
        if gradient is not None:
            scale = tf.cast(factor, gradient.dtype)
            if steps > 1:
                held = tf.cast(_accumulator(inner, weight), gradient.dtype)
                held = held if unscale is None else held / tf.cast(unscale, gradient.dtype)
                gradient = tf.where(factor < 1, scale * (gradient + held) - held, gradient)
            else:
                gradient = gradient * scale
        clipped.append(gradient)
    return clipped
