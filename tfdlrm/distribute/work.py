"""What there is to do in an epoch, in blocks that any worker can do: given its batches, or told which to read."""

from __future__ import annotations

import abc
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from keras.src.trainers.epoch_iterator import EpochIterator

from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.origins import origin_of, read_batch
from tfdlrm.distribute.worker_step import Part, WorkerStep, num_rows, take_rows
from tfdlrm.embeddings.placement.push_guard import PushNumber

_NUMBER = tf.TensorSpec([], tf.int64)
_SHARE = tf.TensorSpec([], tf.float32)
_PLACE = tf.TensorSpec([], tf.resource)


class Block(NamedTuple):
    """One piece of work, a batch: a concrete function and its arguments."""

    function: Any
    args: tuple


class Work(abc.ABC):
    """The rows of `fit`, `evaluate` or `predict`.

    Attributes:
        num_batches: an epoch, or None where nobody knows.
        signature: TensorSpecs of what a worker is told of a batch.
        form: tells work apart whose functions differ.
    """

    num_batches: int | None
    signature: tuple
    form: str

    @abc.abstractmethod
    def example(self) -> Any:
        """A batch `(x, y, ...)`, to build the model from."""

    @abc.abstractmethod
    def batches(self) -> Iterator[tuple]:
        """What a worker is told of each batch of the next epoch, in order; see `signature`."""

    @abc.abstractmethod
    def batch(self, *told: Any) -> Any:
        """The batch `(x, y, ...)`, in a graph of a worker."""

    @abc.abstractmethod
    def parts(self, told: tuple, step: WorkerStep, num_parts: int) -> list[tuple[Any, tuple]]:
        """A batch in up to `num_parts` parts of about as many rows: each one's share of the rows, and its `told`."""

    def blocks(self, kind: str, step: WorkerStep, new_number: Callable[[], int]) -> Iterator[tuple[int, Block]]:
        """Number and work of each block of the next epoch.

        Args:
            kind: "train", "test" or "predict".
            step: what is done with a batch.
            new_number: gives a block's number, for its pushes.
        """
        function = self._function(kind, step)
        for told in self.batches():
            number = new_number()
            yield number, Block(function, (tf.constant(number, tf.int64), *told))

    def sync_steps(self, step: WorkerStep, new_number: Callable[[], int], num_parts: int) -> Iterator[list[Block]]:
        """The steps of a synchronous epoch, each in up to `num_parts` parts, which are done side by side."""
        places = [step.places(part) for part in range(num_parts)]
        function = self._part_function(step, len(places[0]))
        for told in self.batches():
            number = tf.constant(new_number(), tf.int64)
            yield [
                Block(function, (number, tf.constant(part, tf.int64), share, *places[part], *own))
                for part, (share, own) in enumerate(self.parts(told, step, num_parts))
            ]

    def _function(self, kind: str, step: WorkerStep) -> Any:
        def make() -> Any:
            @tf.function(autograph=False, input_signature=[_NUMBER, *self.signature])
            def once(number: tf.Tensor, *told: Any) -> Any:
                batch = self.batch(*told)
                words = step.dense.fetch()
                if kind == "predict":
                    return step.predict(batch, words)
                if kind == "test":
                    return step.packed(step.test(batch, words, step.zeros()))
                numbered = PushNumber(number, tf.constant(0, tf.int64))
                return step.packed(step.train(batch, words, step.zeros(), numbered))

            return once.get_concrete_function()

        return self._traced(step, kind, make)

    def _part_function(self, step: WorkerStep, num_places: int) -> Any:
        # one for all parts, however many: which part, and where its pushes wait, are arguments
        signature = [_NUMBER, _NUMBER, _SHARE, *[_PLACE] * num_places, *self.signature]

        def make() -> Any:
            @tf.function(autograph=False, input_signature=signature)
            def once(number: tf.Tensor, which: tf.Tensor, share: tf.Tensor, *rest: Any) -> Any:
                numbered = PushNumber(number, tf.constant(0, tf.int64))
                batch = self.batch(*rest[num_places:])
                part = Part(which, share, rest[:num_places])
                return step.packed(step.train(batch, step.dense.fetch(), step.zeros(), numbered, part))

            return once.get_concrete_function()

        return self._traced(step, "part", make)

    def _traced(self, step: WorkerStep, name: str, make: Callable[[], Any]) -> Any:
        """A function of the step on batches of this form, traced once for all calls of `fit` and `evaluate`."""
        key = (name, self.form)
        if key not in step.functions:
            step.functions[key] = make()
        return step.functions[key]


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
        self._describe(self._epochs.dataset.element_spec)

    def _describe(self, spec: Any) -> None:
        # batches of any size share one function
        any_rows = tf.nest.map_structure(_any_rows, spec)
        self.signature = _as_tuple(any_rows)
        self.form = repr(any_rows)

    def example(self) -> Any:
        return next(iter(self._epochs.dataset))

    def batches(self) -> Iterator[tuple]:
        for _, _, (batch,) in self._epochs:
            yield _as_tuple(batch)

    def batch(self, *told: Any) -> Any:
        return told

    def parts(self, told: tuple, step: WorkerStep, num_parts: int) -> list[tuple[Any, tuple]]:
        return self._cut(step, min(num_parts, max(int(num_rows(told)), 1)))(*told)

    def _cut(self, step: WorkerStep, count: int) -> Any:
        def make() -> Any:
            @tf.function(autograph=False, input_signature=self.signature)
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


class ScoringWork(BatchWork):
    """Batches `(features, ...)` whose features alone are sent.

    Args:
        elements: in their order.

    Attributes:
        waiting: those handed out, oldest first.
    """

    def __init__(self, elements: tf.data.Dataset):
        self.num_batches = None
        self.waiting: deque[Any] = deque()
        self._elements = elements
        self._describe((elements.element_spec[0],))

    def example(self) -> Any:
        return (next(iter(self._elements))[0],)

    def batches(self) -> Iterator[tuple]:
        for element in self._elements:
            self.waiting.append(element)
            yield (element[0],)


class ReadingWork(Work):
    """Batches that every worker reads for itself: it is told the epoch and which rows.

    Args:
        resumable: its rows have an origin, which every worker can open.
    """

    def __init__(self, resumable: ResumableInput):
        self._input = resumable
        self._rows: Any = resumable.rows
        self.num_batches = resumable.num_batches
        self.signature = (_NUMBER,) * 3
        plan = resumable.plan
        self.form = f"{origin_of(self._rows)} shuffle={plan.shuffle} seed={plan.seed}"

    def example(self) -> Any:
        return self.batch(*self._told(0, 0))

    def batches(self) -> Iterator[tuple]:
        epoch, first = self._input.begin_epoch()
        for number in range(first, self._input.num_batches):
            yield self._told(epoch, number)

    def batch(self, *told: Any) -> Any:
        return read_batch(self._rows, self._input.plan, *told)

    def parts(self, told: tuple, step: WorkerStep, num_parts: int) -> list[tuple[Any, tuple]]:
        epoch, start, stop = (int(value) for value in told)
        rows = stop - start
        count = min(num_parts, rows)
        bounds = [start + rows * part // count for part in range(count + 1)]
        return [
            (tf.constant((high - low) / rows, tf.float32), _numbers(epoch, low, high))
            for low, high in itertools.pairwise(bounds)
        ]

    def _told(self, epoch: int, number: int) -> tuple:
        size = self._input.plan.batch_size
        return _numbers(epoch, number * size, min((number + 1) * size, self._rows.num_rows))


def _numbers(*values: int) -> tuple:
    return tuple(tf.constant(value, tf.int64) for value in values)


def _as_tuple(batch: Any) -> tuple:
    return batch if isinstance(batch, tuple) else (batch,)


def _any_rows(spec: Any) -> Any:
    if isinstance(spec, tf.TensorSpec) and spec.shape.rank:
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    if isinstance(spec, tf.SparseTensorSpec):
        return tf.SparseTensorSpec([None, *spec.shape[1:]], spec.dtype)
    if isinstance(spec, tf.RaggedTensorSpec):
        shape = tf.TensorShape([None, *spec.shape[1:]])
        return tf.RaggedTensorSpec(shape, spec.dtype, spec.ragged_rank, spec.row_splits_dtype)
    return spec
