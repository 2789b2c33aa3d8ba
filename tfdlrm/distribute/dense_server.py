"""Dense weights on the first parameter server: read by workers as one message, updated there by one message."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.checks import quoted
from tfdlrm.embeddings.placement import wire
from tfdlrm.embeddings.placement.push_guard import PushGuard, PushNumber
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.models.base import inner_optimizer, tables_of


class DenseValues(NamedTuple):
    """The model at one moment, as a worker sees it.

    Args:
        trainable: values of the trainable weights.
        state: values of all other variables: moving averages, random state.
        learning_rate: float32, of the Keras optimizer.
        table_steps: int64, updates so far of each of the model's tables.
    """

    trainable: list[tf.Tensor]
    state: list[tf.Tensor]
    learning_rate: tf.Tensor
    table_steps: list[tf.Tensor]


class DenseServer(tf.Module):
    """See the module.

    Args:
        model: compiled and built; its variables and those of its optimizer lie on `device`.
        device: of the server.
    """

    def __init__(self, model: keras.Model, device: str):
        super().__init__(name="dense_server")
        self._model = model
        self.device = device
        self.trainable = dense_weights(model.trainable_variables)
        trained = {id(variable) for variable in self.trainable}
        self.state = [variable for variable in dense_weights(model.variables) if id(variable) not in trained]
        self.averages = [variable for variable in self.state if "float" in str(variable.dtype)]
        self._guard = PushGuard("dense", device)
        self._places: list[tf.Variable] = []
        for variable in (*self.trainable, *self.state):
            if tf.as_dtype(variable.dtype).size not in (4, 8):
                raise ValueError(
                    f"variable {quoted(variable.path)} is {variable.dtype}, which parameter servers do not send. Use a "
                    "precision policy with float32 variables (mixed_bfloat16 has them)."
                )

    def fetch(self) -> tf.Tensor:
        """All of `DenseValues` as words; one message."""
        optimizer = getattr(self._model, "optimizer", None)  # None before `compile`
        with tf.device(self.device):
            parts = [wire.to_words(tf.convert_to_tensor(variable)) for variable in (*self.trainable, *self.state)]
            rate = tf.constant(0.0) if optimizer is None else inner_optimizer(optimizer).learning_rate
            rate = tf.cast(tf.convert_to_tensor(rate), tf.float32)
            parts.append(wire.to_words(tf.reshape(rate, [1])))
            for tables in tables_of(self._model):
                parts.append(wire.to_words(tf.reshape(tables.iterations.read_value(), [1])))
            words = wire.message(parts)
        return tf.identity(words)

    def values(self, words: tf.Tensor) -> DenseValues:
        """Inverse of `fetch`."""
        reader = wire.Reader(words)

        def read(variable: Any) -> tf.Tensor:
            flat = reader.values(tf.as_dtype(variable.dtype), int(tf.TensorShape(variable.shape).num_elements()))
            return tf.reshape(flat, variable.shape)

        trainable = [read(variable) for variable in self.trainable]
        state = [read(variable) for variable in self.state]
        rate = reader.scalar(tf.float32)
        return DenseValues(trainable, state, rate, [reader.scalar(tf.int64) for _ in tables_of(self._model)])

    def message(self, gradients: list[tf.Tensor], changes: list[tf.Tensor], number: PushNumber) -> tf.Tensor:
        """A push as words.

        Args:
            gradients: of the trainable weights.
            changes: what `averages` moved by.
            number: of the push.
        """
        head = wire.to_words(tf.stack([number.block, number.step]))
        return wire.message([head, *(wire.to_words(tf.cast(value, tf.float32)) for value in (*gradients, *changes))])

    def receive(self, words: tf.Tensor) -> None:
        """Applies a push; ops of the server."""
        with tf.device(self.device):
            self._apply([tf.identity(words)])

    def leave(self, words: tf.Tensor, place: tf.Tensor) -> None:
        """Puts one part of a synchronous step into a place, given by its handle."""
        with tf.device(self.device):
            tf.raw_ops.AssignVariableOp(resource=place, value=words)

    def place(self, part: int) -> tf.Variable:
        """As `TableServer.place`."""
        with tf.init_scope(), tf.device(self.device):
            while len(self._places) <= part:
                self._places.append(
                    resource_variable_ops.ResourceVariable(
                        tf.zeros([0], tf.int32),
                        shape=tf.TensorShape(None),
                        trainable=False,
                        name=f"dense_place_{len(self._places)}",
                    )
                )
        return self._places[part]

    def apply_places(self, num_parts: int) -> None:
        """Sums the parts of a synchronous step, in order, and updates once."""
        with tf.device(self.device):
            self._apply([tf.ensure_shape(self.place(part).read_value(), [None]) for part in range(num_parts)])

    def _apply(self, messages: list[tf.Tensor]) -> None:
        model, optimizer = self._model, self._model.optimizer
        readers = [wire.Reader(words) for words in messages]
        numbers = [PushNumber(*tf.unstack(reader.values(tf.int64, 2))) for reader in readers]
        variables = (*self.trainable, *self.averages)
        parts = [[_read_floats(reader, variable) for variable in variables] for reader in readers]
        sums = parts[0] if len(parts) == 1 else [tf.add_n(list(values)) for values in zip(*parts, strict=True)]
        with self._guard.once(numbers[0]) as fresh:

            def update() -> tf.Tensor:
                gradients = sums[: len(self.trainable)]
                if self.trainable:
                    optimizer.apply(gradients, self.trainable)
                for variable, change in zip(self.averages, sums[len(self.trainable) :], strict=True):
                    variable.value.assign_add(tf.cast(change, variable.dtype))
                for tables in tables_of(model):
                    tables.iterations.assign_add(1)
                return tf.constant(True)

            tf.cond(fresh, update, lambda: tf.constant(False))


def _read_floats(reader: wire.Reader, variable: Any) -> tf.Tensor:
    count = int(tf.TensorShape(variable.shape).num_elements())
    return tf.cast(tf.reshape(reader.values(tf.float32, count), variable.shape), variable.dtype)
