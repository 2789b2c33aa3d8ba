"""What a worker does with one batch: a training, a test or a prediction step whose state is in tensors.

No variable of Keras is read or changed on a worker. Dense values come from the server as one message and metrics leave
as sums, which the coordinator adds up, so that a step that is done again counts once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.distribute.dense_server import DenseServer, DenseValues
from tfdlrm.embeddings.placement import wire
from tfdlrm.embeddings.placement.parameter_server import ParameterServerPlacement
from tfdlrm.embeddings.placement.push_guard import PushNumber
from tfdlrm.embeddings.recording import LookupRecorder, record_lookups
from tfdlrm.models.base import collections_of, inner_optimizer, tables_of
from tfdlrm.native.scope import native_kernels

Sums = list[tf.Tensor]
"""What a step adds to each variable of the metrics and to each collection's counts of id policies."""


MEAN, SUM = "sum_over_batch_size", "sum"


class Part(NamedTuple):
    """Which part of a synchronous step's batch.

    Its number, int64; its share of the rows, float32; and where its pushes wait: `WorkerStep.places`.
    """

    number: tf.Tensor
    share: tf.Tensor
    places: Sequence[tf.Tensor]


class WorkerStep:
    """Steps of one compiled, built model.

    Args:
        model: its tables are on parameter servers.
        dense: the server of its dense weights.
    """

    def __init__(self, model: keras.Model, dense: DenseServer):
        self.model = model
        self.dense = dense
        self.functions: dict[tuple[str, str], Any] = {}  # traced of this step, by what they do and their batches' form
        self._metric_variables = [variable for metric in model.metrics for variable in metric.variables]
        self._counts = [layer._policy_counts for layer in collections_of(model)]

    @property
    def placements(self) -> list[ParameterServerPlacement]:
        """Of the model's tables."""
        return [tables.placement for tables in tables_of(self.model)]  # type: ignore[misc]

    def summed_variables(self) -> list[Any]:
        """What `Sums` are added to."""
        return [*self._metric_variables, *self._counts]

    def packed(self, sums: Sums) -> tf.Tensor:
        """Sums as words: the coordinator fetches one tensor, not one a variable."""
        return wire.message([wire.to_words(total) for total in sums])

    def unpacked(self, words: np.ndarray) -> list[np.ndarray]:
        """Inverse of `packed`, in NumPy."""
        found, position = [], 0
        for variable in self.summed_variables():
            dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
            shape = tuple(variable.shape)
            count = math.prod(shape) * dtype.itemsize // words.itemsize
            found.append(words[position : position + count].view(dtype).reshape(shape))
            position += count
        return found

    def zeros(self) -> Sums:
        """Sums of no step."""
        return [tf.zeros(variable.shape, tf.as_dtype(variable.dtype)) for variable in self.summed_variables()]

    def train(self, batch: Any, words: tf.Tensor, sums: Sums, number: PushNumber, part: Part | None = None) -> Sums:
        """One training step.

        Args:
            batch: `(x, y)` or `(x, y, sample_weight)`.
            words: of `DenseServer.fetch`.
            sums: so far.
            number: of the push.
            part: of a synchronous step; the push then waits on the servers.
        """
        values = self.dense.values(words)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        # each step and part draws dropout of its own from one random state
        state = self._drawn(values.state, number, part)
        mapping = [
            *zip(self.dense.trainable, values.trainable, strict=True),
            *zip(self.dense.state, state, strict=True),
            *zip(self._metric_variables, sums, strict=False),
        ]
        with (
            tf.GradientTape() as tape,
            record_lookups(tape, stateless=True) as recorder,
            keras.StatelessScope(mapping, collect_losses=False) as scope,
        ):
            tape.watch(values.trainable)
            y_pred = self.model(x, training=True)
            loss = self.model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            if part is not None and _reduction(self.model) == SUM:
                # of the whole batch, if all its rows were as these; what is added to it does not grow with the rows
                added = sum(self.model.losses, tf.constant(0.0, loss.dtype))
                loss = (loss - added) / tf.cast(part.share, loss.dtype) + added
            self.model._loss_tracker.update_state(loss, sample_weight=_num_rows(x))
            self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
            objective = loss if part is None else loss * tf.cast(part.share, loss.dtype)
        dense, pooled = tape.gradient(objective, [values.trainable, recorder.leaves])
        dense = [tf.zeros_like(v) if g is None else g for g, v in zip(dense, values.trainable, strict=True)]
        old = {id(variable): value for variable, value in zip(self.dense.state, state, strict=True)}
        share = 1.0 if part is None else part.share
        changes = [
            (scope.get_current_value(variable) - old[id(variable)]) * tf.cast(share, variable.dtype)
            for variable in self.dense.averages
        ]
        self._push(recorder, dense, pooled, changes, values, number, part)
        metrics = [scope.get_current_value(variable) for variable in self._metric_variables]
        counts = sums[len(metrics) :]
        return [*metrics, *(self._counted(i, total, recorder) for i, total in enumerate(counts))]

    def _counted(self, index: int, total: tf.Tensor, recorder: LookupRecorder) -> tf.Tensor:
        own = [counts for variable, counts in recorder.policy_counts if variable is self._counts[index]]
        return tf.add_n([total, *own])

    def _drawn(self, state: Sequence[tf.Tensor], number: PushNumber, part: Part | None) -> list[tf.Tensor]:
        averages = {id(variable) for variable in self.dense.averages}
        drawn = []
        for variable, value in zip(self.dense.state, state, strict=True):
            if id(variable) not in averages and value.dtype == tf.uint32 and value.shape == (2,):
                # Keras counts draws in the second word and leaves the first as it is
                turn = number.block * 65_537 + number.step * 257 + (0 if part is None else part.number)
                value = value + tf.stack([tf.cast(turn & 0x7FFFFFFF, tf.uint32), tf.constant(0, tf.uint32)])
            drawn.append(value)
        return drawn

    def _push(
        self,
        recorder: LookupRecorder,
        dense: list[tf.Tensor],
        pooled: list[tf.Tensor | None],
        changes: list[tf.Tensor],
        values: DenseValues,
        number: PushNumber,
        part: Part | None,
    ) -> None:
        limit = inner_optimizer(self.model.optimizer).global_clipnorm
        gradients = [(tables, tables.gradients(pairs)) for tables, pairs in recorder.by_tables(pooled)]
        factor = None
        if limit:
            squares = [tf.nn.l2_loss(g) * 2 for g in dense] + [t.squared_norm(g) for t, g in gradients]
            norm = tf.sqrt(tf.add_n(squares))
            factor = tf.where(norm > limit, limit / norm, 1.0)
            dense = [gradient * tf.cast(factor, gradient.dtype) for gradient in dense]
        steps = dict(zip(map(id, tables_of(self.model)), values.table_steps, strict=True))
        waiting = {} if part is None else self._places_by_tables(part.places)
        for tables, found in gradients:
            placement = tables.placement
            assert isinstance(placement, ParameterServerPlacement)
            with placement.pushing(number, waiting.get(id(placement))):
                placement.apply(found, learning_rate=values.learning_rate, step=steps[id(tables)], scale=factor)
        words = self.dense.message(dense, changes, number)
        if part is None:
            self.dense.receive(words)
        else:
            self.dense.leave(words, part.places[0])

    def places(self, part: int) -> list[tf.Tensor]:
        """Handles of where a part of a synchronous step leaves its pushes: dense, then those of every placement."""
        tables = [handle for placement in self.placements for handle in placement.places(part)]
        return [self.dense.place(part).handle, *tables]

    def _places_by_tables(self, places: Sequence[tf.Tensor]) -> dict[int, Sequence[tf.Tensor]]:
        found, first = {}, 1
        for placement in self.placements:
            found[id(placement)] = places[first : first + len(placement.servers)]
            first += len(placement.servers)
        return found

    def apply_parts(self, num_parts: int) -> None:
        """The second half of a synchronous step: servers sum what the parts have left, and update."""
        for placement in self.placements:
            placement.apply_parts(num_parts)
        self.dense.apply_places(num_parts)

    def test(self, batch: Any, words: tf.Tensor, sums: Sums) -> Sums:
        """One step of `evaluate`: changes nothing but sums."""
        values = self.dense.values(words)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with native_kernels(), keras.StatelessScope([*self._mapping(values), *self._metrics(sums)]) as scope:
            y_pred = self.model(x, training=False)
            loss = self.model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)
            self.model._loss_tracker.update_state(loss, sample_weight=_num_rows(x))
            self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        metrics = [scope.get_current_value(variable) for variable in self._metric_variables]
        return [*metrics, *sums[len(metrics) :]]

    def predict(self, batch: Any, words: tf.Tensor) -> Any:
        """One step of `predict`: the model's output."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        with native_kernels(), keras.StatelessScope(self._mapping(self.dense.values(words))):
            return self.model(x, training=False)

    def _mapping(self, values: DenseValues) -> list[tuple[Any, tf.Tensor]]:
        trainable = zip(self.dense.trainable, values.trainable, strict=True)
        return [*trainable, *zip(self.dense.state, values.state, strict=True)]

    def _metrics(self, sums: Sums) -> list[tuple[Any, tf.Tensor]]:
        return list(zip(self._metric_variables, sums, strict=False))


def refuse_options(model: keras.Model, *, synchronous: bool) -> None:
    """Refuses what cannot be done right on parameter servers.

    Raises:
        ValueError: names the model, the option, its value and the fix.
    """
    optimizer = model.optimizer
    inner = inner_optimizer(optimizer)
    if optimizer is not inner or inner.loss_scale_factor:
        raise ValueError(
            f"model {quoted(model.name)}: loss scaling (mixed_float16, loss_scale_factor) is not "
            "supported on parameter "
            "servers. Use mixed_bfloat16, which needs none."
        )
    if inner.gradient_accumulation_steps:
        raise ValueError(
            f"model {quoted(model.name)}: "
            f"gradient_accumulation_steps={inner.gradient_accumulation_steps} is not supported "
            "on parameter servers, where pushes of several workers would be held together. Raise the batch size."
        )
    if synchronous and _reduction(model) not in (MEAN, SUM):
        raise ValueError(
            f"model {quoted(model.name)}: a loss of reduction={quoted(_reduction(model))} is not "
            "supported in synchronous mode, "
            f"which adds up the losses of parts of a batch. Use {quoted(MEAN)}, or {quoted(SUM)} for all losses."
        )
    if synchronous and inner.global_clipnorm:
        raise ValueError(
            f"model {quoted(model.name)}: global_clipnorm={inner.global_clipnorm} is not "
            "supported in synchronous mode: no "
            "process sees the whole gradient. Use clipnorm of single weights and of row optimizers."
        )


def _losses(model: keras.Model) -> list[Any]:
    """As `compile` was given them."""
    return [loss for loss in keras.tree.flatten(model._compile_loss._user_loss) if loss is not None]


def _reduction(model: keras.Model) -> Any:
    """How a model's losses make one number of the rows of a batch; the first that is not the mean."""
    found = [loss.reduction if isinstance(loss, keras.losses.Loss) else MEAN for loss in _losses(model)]
    found = [MEAN if reduction == "mean" else reduction for reduction in found]
    if len(set(found)) > 1:
        return " and ".join(sorted(map(str, set(found))))
    return found[0] if found else MEAN


def refuse_loss_of_a_batch(model: keras.Model, y: Any, y_pred: Any) -> None:
    """Refuses, in synchronous mode, a loss that is one number for a whole batch: of its parts, nobody knows the whole.

    Raises:
        ValueError: names the model and the fix.
    """
    pairs = list(zip(keras.tree.flatten(y), keras.tree.flatten(y_pred), strict=False))
    for loss, (true, predicted) in zip(_losses(model), pairs, strict=False):
        function = loss.call if isinstance(loss, keras.losses.Loss) else keras.losses.get(loss)
        if len(keras.ops.shape(function(keras.ops.convert_to_tensor(true), predicted))) == 0:
            raise ValueError(
                f"model {quoted(model.name)}: the loss {quoted(getattr(loss, '__name__', loss))} "
                "gives one number for a batch, "
                "which is not supported in synchronous mode. Give a value for each row, and a reduction."
            )


def _num_rows(x: Any) -> tf.Tensor:
    first = next(leaf for leaf in tf.nest.flatten(x) if leaf is not None)
    return first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first)[0]


def num_rows(batch: Any) -> tf.Tensor:
    """Rows of a batch `(x, ...)`."""
    return _num_rows(keras.utils.unpack_x_y_sample_weight(batch)[0])


def take_rows(batch: Any, start: tf.Tensor, stop: tf.Tensor) -> Any:
    """Rows `[start, stop)` of every tensor of a batch."""

    def take(value: Any) -> Any:
        if isinstance(value, tf.SparseTensor):
            rest = value.dense_shape[1:]
            begin = tf.concat([tf.reshape(tf.cast(start, tf.int64), [1]), tf.zeros_like(rest)], axis=0)
            return tf.sparse.slice(value, begin, tf.concat([tf.reshape(tf.cast(stop - start, tf.int64), [1]), rest], 0))
        return value[start:stop]

    return tf.nest.map_structure(take, batch)
