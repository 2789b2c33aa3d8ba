"""What `fit`, `evaluate` and `predict` do on parameter servers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import array_slicing

from tfdlrm.checks import quoted
from tfdlrm.data.epochs import ResumableInput, input_of
from tfdlrm.data.origins import open_anew, origin_of
from tfdlrm.distribute.dense_server import DenseServer
from tfdlrm.distribute.dispatch import Dispatcher, explaining
from tfdlrm.distribute.fingerprint import have_rows
from tfdlrm.distribute.metric_sums import MetricSums
from tfdlrm.distribute.work import BatchWork, Block, ReadingWork, ScoringWork, Work
from tfdlrm.distribute.worker_step import WorkerStep, refuse_loss_of_a_batch, refuse_options

_FIT = inspect.signature(keras.Model.fit)
_EVALUATE = inspect.signature(keras.Model.evaluate)
_PREDICT = inspect.signature(keras.Model.predict)


class FitLoop:
    """The loop of one model under one strategy.

    Args:
        model: made in the strategy's scope.
        strategy: a `ParameterServerStrategy`.
    """

    def __init__(self, model: keras.Model, strategy: Any):
        self.model = model
        self.strategy = strategy
        self._step: WorkerStep | None = None
        self._compiled_with: Any = None
        self._next_block = 0
        self._held = False
        self._outstanding = 0
        self._sums: MetricSums | None = None
        self._readable: dict[str, bool] = {}

    def check_compiled(self) -> None:
        """Refuses options that parameter servers cannot honour.

        Raises:
            ValueError: names the model, the option, its value and the fix.
        """
        refuse_options(self.model, synchronous=self.strategy.options.synchronous)

    # -- public: as Keras's --

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """See `keras.Model.fit`. `on_train_batch_end` is called as blocks of steps finish, in any order."""
        with explaining(self.strategy.cluster):
            return self._fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """See `keras.Model.evaluate`: the metrics of all batches, scored by the workers."""
        with explaining(self.strategy.cluster):
            return self._evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """See `keras.Model.predict`: outputs in the order of the rows."""
        with explaining(self.strategy.cluster):
            return self._predict(*args, **kwargs)

    def scored(self, batches: tf.data.Dataset) -> Iterator[tuple[Any, np.ndarray]]:
        """Every element `(features, ...)` with the model's output for its features, float32, in order."""
        with explaining(self.strategy.cluster):
            yield from self._scored(batches)

    # -- holding --

    def hold(self) -> bool:
        """For callbacks that save in the middle of an epoch: True where no worker is training now.

        Metrics are then those of all steps so far. Otherwise no more blocks are handed out until those under way have
        finished; each calls `on_train_batch_end`, and for the last one this is True.
        """
        if self._outstanding:
            self._held = True
            return False
        if self._sums is not None:
            self._sums.flush()
        return True

    # -- the parts --

    def _fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        given = _bound(_FIT, self.model, args, kwargs)
        model = self.model
        model._assert_compile_called("fit")
        x, y, sample_weight = given["x"], given["y"], given["sample_weight"]
        validation = given["validation_data"]
        if given["validation_split"] and validation is None:
            (x, y, sample_weight), validation = array_slicing.train_validation_split(
                (x, y, sample_weight), validation_split=given["validation_split"]
            )
        work = self._work(
            x, y, sample_weight, given["batch_size"], given["steps_per_epoch"], given["shuffle"], given["class_weight"]
        )
        if work.num_batches == 0:
            raise self._no_batch()
        step = self._prepare(work)
        callbacks = given["callbacks"]
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks,
                add_history=True,
                add_progbar=given["verbose"] != 0,
                verbose=1 if given["verbose"] == "auto" else given["verbose"],
                epochs=given["epochs"],
                steps=work.num_batches,
                model=model,
            )
        self._sums = sums = MetricSums(step)
        model.stop_training = False
        callbacks.on_train_begin()
        logs: dict[str, Any] = {}
        for epoch in range(model._initial_epoch or given["initial_epoch"], given["epochs"]):
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            sums.begin()
            self._train_epoch(work, step, sums, callbacks)
            logs = sums.logs(fresh=True)
            sums.flush()
            if validation is not None and model._should_eval(epoch, given["validation_freq"]):
                vx, vy, weight = keras.utils.unpack_x_y_sample_weight(validation)
                found = self.evaluate(
                    vx,
                    vy,
                    batch_size=given["validation_batch_size"] or given["batch_size"],
                    sample_weight=weight,
                    steps=given["validation_steps"],
                    callbacks=callbacks,
                    return_dict=True,
                    verbose=0,
                )
                logs = {**logs, **{f"val_{name}": value for name, value in found.items()}}
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs=logs)
        return model.history

    def _evaluate(self, *args: Any, **kwargs: Any) -> Any:
        given = _bound(_EVALUATE, self.model, args, {k: v for k, v in kwargs.items() if not k.startswith("_")})
        model = self.model
        model._assert_compile_called("evaluate")
        work = self._work(given["x"], given["y"], given["sample_weight"], given["batch_size"], given["steps"])
        step = self._prepare(work)
        callbacks = given["callbacks"]
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks,
                add_progbar=given["verbose"] != 0,
                verbose=1 if given["verbose"] == "auto" else given["verbose"],
                epochs=1,
                steps=work.num_batches,
                model=model,
            )
        callbacks.on_test_begin()
        model.reset_metrics()
        sums = MetricSums(step)
        sums.begin()
        scored = self._each(work.blocks("test", step, self.new_block), dispatch_limit(self.strategy))
        for done, (_, found) in enumerate(scored):
            sums.add(found)
            callbacks.on_test_batch_begin(done)
            callbacks.on_test_batch_end(done, sums.logs())
        logs = sums.logs(fresh=True)
        sums.flush()
        callbacks.on_test_end(logs)
        return logs if given["return_dict"] else _flat_list(logs)

    def _predict(self, *args: Any, **kwargs: Any) -> Any:
        given = _bound(_PREDICT, self.model, args, kwargs)
        work = self._work(given["x"], None, None, given["batch_size"], given["steps"])
        step = self._prepare(work, compiled=False)
        found = dict(self._each(work.blocks("predict", step, self.new_block), dispatch_limit(self.strategy)))
        if not found:
            raise ValueError("predict: there is no batch in x. Give at least one row.")
        outputs = [found[key] for key in sorted(found)]
        return tf.nest.map_structure(lambda *parts: np.concatenate([np.asarray(p) for p in parts], axis=0), *outputs)

    def _scored(self, batches: tf.data.Dataset) -> Iterator[tuple[Any, np.ndarray]]:
        work = ScoringWork(batches)
        step = self._prepare(work, compiled=False)
        arrived: dict[int, Any] = {}
        first = self._next_block + 1
        for number, output in self._each(work.blocks("predict", step, self.new_block), dispatch_limit(self.strategy)):
            arrived[number] = output
            while first in arrived:
                yield work.waiting.popleft(), np.asarray(arrived.pop(first), np.float32)
                first += 1

    def _work(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        batch_size: int | None,
        steps: int | None,
        shuffle: Any = False,
        class_weight: Any = None,
    ) -> Work:
        if isinstance(x, tf.data.Dataset) and y is sample_weight is steps is None and not class_weight:
            resumable = input_of(x)
            if resumable is not None and self._workers_read(resumable):
                return ReadingWork(resumable)
        return BatchWork(
            x=x,
            y=y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            steps_per_epoch=steps,
            shuffle=shuffle,
            class_weight=class_weight,
        )

    def _workers_read(self, resumable: ResumableInput) -> bool:
        """Whether every worker can open the rows; says once where one cannot.

        Raises:
            FileNotFoundError, ValueError: nobody can any longer.
        """
        origin = origin_of(resumable.rows)
        if origin is None:
            return False
        if origin not in self._readable:
            open_anew(origin)
            self._readable[origin] = have_rows(self.strategy.cluster, origin)
        return self._readable[origin]

    def _prepare(self, work: Work, *, compiled: bool = True) -> WorkerStep:
        model = self.model
        with self.strategy.scope():
            self._build(work, compiled)
            optimizer = getattr(model, "optimizer", None)  # None before `compile`
            if optimizer is not None and not optimizer.built:
                optimizer.build(model.trainable_variables)
        if self._step is None or self._compiled_with is not optimizer:
            if optimizer is not None:
                # the servers update as one process does: nothing is mirrored there
                optimizer._distribution_strategy = tf.distribute.get_strategy()
            dense = DenseServer(model, self.strategy.server_devices[0])
            self._step = WorkerStep(model, dense)
            self._compiled_with = optimizer
        return self._step

    def _build(self, work: Work, compiled: bool) -> None:
        """Makes every variable of model, loss and metrics, by a batch: Keras's symbolic batches cannot be ragged."""
        model = self.model
        metrics, loss = model._compile_metrics, model._compile_loss
        if model.built and (
            not compiled or (all(part is None or part.built for part in (metrics, loss)) and model.metrics)
        ):
            return
        try:
            example = work.example()
        except StopIteration:
            raise self._no_batch() from None
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(example)
        y_pred = model(x, training=False)
        if compiled and self.strategy.options.synchronous:
            refuse_loss_of_a_batch(model, y, y_pred)
        if compiled:
            model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)
            model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
            model.reset_metrics()

    def _no_batch(self) -> ValueError:
        return ValueError(
            f"model {quoted(self.model.name)}: there is no batch in the data. Give at least one row, or, with "
            "drop_remainder, as many as a batch has."
        )

    def dispatcher(self) -> Dispatcher:
        """A new one, with nothing under way."""
        return Dispatcher(self.strategy.coordinator())

    def _train_epoch(
        self, work: Work, step: WorkerStep, sums: MetricSums, callbacks: keras.callbacks.CallbackList
    ) -> None:
        if self.strategy.options.synchronous:
            from tfdlrm.distribute.synchronous import synchronous_steps

            finished = synchronous_steps(self, work, step)
        else:
            finished = self._asynchronous_steps(work, step)
        for done, found in enumerate(finished):
            callbacks.on_train_batch_begin(done)
            for words in found:
                sums.add(words)
            if self._outstanding == 0:
                self._held = False
            callbacks.on_train_batch_end(done, sums.logs())

    def _asynchronous_steps(self, work: Work, step: WorkerStep) -> Iterator[list[Any]]:
        blocks = work.blocks("train", step, self.new_block)
        limit, staleness = dispatch_limit(self.strategy), self.strategy.options.max_staleness
        for _, found in self._each(blocks, limit, staleness, stops=True):
            yield [found]

    def new_block(self) -> int:
        """A number for a block of steps, larger than all before."""
        self._next_block += 1
        return self._next_block

    def _each(
        self, blocks: Iterator[tuple[int, Block]], limit: int, max_staleness: int | None = None, *, stops: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Number and result of every block, as they finish.

        Args:
            blocks: to hand out, with their numbers.
            limit: blocks at a time.
            max_staleness: blocks that may have been handed out since the oldest that is unfinished, and with it.
            stops: hand out no more once a callback has ended the training.
        """
        dispatcher = self.dispatcher()
        under_way: set[int] = set()
        ended = False
        while True:
            ended = ended or (stops and self.stopping())
            while not (ended or self._held) and len(under_way) < limit:
                # the next block's number is one above the last's
                if max_staleness and under_way and self._next_block + 1 - min(under_way) >= max_staleness:
                    break
                number, block = next(blocks, (0, None))
                if block is None:
                    ended = True
                    break
                dispatcher.submit(number, block.function, block.args)
                under_way.add(number)
            self._outstanding = len(under_way)
            if self._outstanding:
                for number, result in dispatcher.wait():
                    self._outstanding -= 1
                    under_way.remove(number)
                    yield number, result
            elif ended:
                return
            else:
                self._held = False

    def stopping(self) -> bool:
        """Whether a callback ends the training."""
        return bool(self.model.stop_training)


def dispatch_limit(strategy: Any) -> int:
    """Blocks handed out at a time: one a worker under way and one waiting, so that none idles."""
    return 2 * len(strategy.cluster.workers)


def _bound(signature: inspect.Signature, model: keras.Model, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = signature.bind(model, *args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _flat_list(logs: dict[str, Any]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
