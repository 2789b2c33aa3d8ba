"""What there is to do in an epoch, in blocks that any worker can do: given its batches, or told which to read."""

from __future__ import annotations

import abc
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from keras.src.trainers.epoch_iterator import EpochIterator

from tfdlrm.distribute.worker_step import Part, WorkerStep, num_rows, take_rows
from tfdlrm.embeddings.placement.push_guard import PushNumber

_NUMBER = tf.TensorSpec([], tf.int64)


class Block(NamedTuple):
    """One piece of work: a concrete function, its arguments, and how many batches it is."""

    function: Any
    args: tuple
    steps: int


class Blocks(abc.ABC):
    """The blocks of one epoch, in order."""

    @abc.abstractmethod
    def next(self, number: int, max_steps: int | None) -> Block | None:
        """The next block, of at most `max_steps` batches; None at the end.

        Args:
            number: of the block, for the pushes.
        """


class SyncStep(NamedTuple):
    """One batch of a synchronous epoch, in parts: one function and its arguments each."""

    parts: list[tuple[Any, tuple]]


class Work(abc.ABC):
    """The rows of `fit`, `evaluate` or `predict`.

    Attributes:
        num_batches: an epoch, or None where nobody knows.
    """

    num_batches: int | None

    @abc.abstractmethod
    def example(self) -> Any:
        """A batch `(x, y, ...)`, to build the model from."""

    @abc.abstractmethod
    def blocks(self, kind: str, step: WorkerStep, epoch: int) -> Blocks:
        """Blocks of "train", "test" or "predict"."""

    @abc.abstractmethod
    def sync_steps(self, step: WorkerStep, epoch: int, first_number: Any, num_parts: int) -> Iterator[SyncStep]:
        """Batches of a synchronous epoch, each cut into up to `num_parts` parts.

        Args:
            first_number: gives the number of the next step's pushes.
        """


class _Epochs(EpochIterator):
    """Keras's own epochs: what `steps_per_epoch` leaves is the next one's, and data that run out are warned of."""

    def __init__(self, **data: Any):
        super().__init__(**data)
        self.dataset: tf.data.Dataset = self.data_adapter.get_tf_dataset()

    def _get_iterator(self) -> tf.data.Dataset:
        return self.dataset


class BatchWork(Work):
    """Batches that the coordinator has: arrays, `tf.data`, generators. They are sent to the workers.

    Args:
        x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight: as of `keras.Model.fit`.
    """

    def __init__(self, **data: Any):
        self._epochs = _Epochs(**data)
        self.num_batches = self._epochs.num_batches
        # batches of any size share one function
        self._spec = tf.nest.map_structure(_any_rows, self._epochs.dataset.element_spec)

    def example(self) -> Any:
        return next(iter(self._epochs.dataset))

    def blocks(self, kind: str, step: WorkerStep, epoch: int) -> Blocks:
        del epoch
        return _FedBlocks(self._function(kind, step), self._batches())

    def _batches(self) -> Iterator[Any]:
        for _, _, (batch,) in self._epochs:
            yield batch

    def _function(self, kind: str, step: WorkerStep) -> Any:
        def make() -> Any:
            @tf.function(autograph=False, input_signature=[_NUMBER, *_signature(self._spec)])
            def once(number: tf.Tensor, *batch: Any) -> Any:
                words = step.dense.fetch()
                if kind == "predict":
                    return step.predict(batch, words)
                if kind == "test":
                    return step.packed(step.test(batch, words, step.zeros()))
                numbered = PushNumber(number, tf.constant(0, tf.int64))
                return step.packed(step.train(batch, words, step.zeros(), numbered))

            return once.get_concrete_function()

        return self._traced(step, kind, make)

    def sync_steps(self, step: WorkerStep, epoch: int, first_number: Any, num_parts: int) -> Iterator[SyncStep]:
        for batch in self._batches():
            count = min(num_parts, max(int(num_rows(batch)), 1))
            number = tf.constant(first_number(), tf.int64)
            parts = []
            for part, (share, taken) in enumerate(self._cut(step, count)(*_as_tuple(batch))):
                parts.append((self._part_function(step, part), (number, share, *taken)))
            yield SyncStep(parts)

    def _cut(self, step: WorkerStep, count: int) -> Any:
        """From a batch to parts of about as many rows: the share of each in the rows, and the part."""

        def make() -> Any:
            @tf.function(autograph=False, input_signature=_signature(self._spec))
            def cut(*batch: Any) -> list[tuple[tf.Tensor, Any]]:
                rows = num_rows(batch)
                bounds = [rows * part // count for part in range(count + 1)]
                whole = tf.cast(tf.maximum(rows, 1), tf.float32)
                return [
                    (tf.cast(stop - start, tf.float32) / whole, take_rows(batch, start, stop))
                    for start, stop in itertools.pairwise(bounds)
                ]

            return cut

        return self._traced(step, f"cut into {count}", make)

    def _part_function(self, step: WorkerStep, part: int) -> Any:
        def make() -> Any:
            share_spec = tf.TensorSpec([], tf.float32)

            @tf.function(autograph=False, input_signature=[_NUMBER, share_spec, *_signature(self._spec)])
            def once(number: tf.Tensor, share: tf.Tensor, *batch: Any) -> Any:
                numbered = PushNumber(number, tf.constant(0, tf.int64))
                return step.packed(step.train(batch, step.dense.fetch(), step.zeros(), numbered, Part(part, share)))

            return once.get_concrete_function()

        return self._traced(step, f"part {part}", make)

    def _traced(self, step: WorkerStep, name: str, make: Callable[[], Any]) -> Any:
        """A function of the step on batches of this form, traced once for all calls of `fit` and `evaluate`."""
        key = (name, repr(self._spec))
        if key not in step.functions:
            step.functions[key] = make()
        return step.functions[key]


class ScoringWork(BatchWork):
    """Batches `(features, ...)` whose features alone are sent.

    Args:
        batches: in their order.

    Attributes:
        waiting: those handed out, oldest first.
    """

    def __init__(self, batches: tf.data.Dataset):
        self.num_batches = None
        self.waiting: deque[Any] = deque()
        self._elements = batches
        self._spec = tf.nest.map_structure(_any_rows, (batches.element_spec[0],))

    def example(self) -> Any:
        return (next(iter(self._elements))[0],)

    def _batches(self) -> Iterator[Any]:
        for element in self._elements:
            self.waiting.append(element)
            yield (element[0],)


class _FedBlocks(Blocks):
    """One batch a block."""

    def __init__(self, function: Any, batches: Iterator[Any]):
        self._function = function
        self._batches = batches

    def next(self, number: int, max_steps: int | None) -> Block | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        return Block(self._function, (tf.constant(number, tf.int64), *_as_tuple(batch)), 1)


def _as_tuple(batch: Any) -> tuple:
    return batch if isinstance(batch, tuple) else (batch,)


def _signature(spec: Any) -> tuple:
    return spec if isinstance(spec, tuple) else (spec,)


def _any_rows(spec: Any) -> Any:
    if isinstance(spec, tf.TensorSpec) and spec.shape.rank:
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    if isinstance(spec, tf.SparseTensorSpec):
        return tf.SparseTensorSpec([None, *spec.shape[1:]], spec.dtype)
    if isinstance(spec, tf.RaggedTensorSpec):
        shape = tf.TensorShape([None, *spec.shape[1:]])
        return tf.RaggedTensorSpec(shape, spec.dtype, spec.ragged_rank, spec.row_splits_dtype)
    return spec
