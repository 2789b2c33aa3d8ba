"""Puts requests together: rows of several requests become one call of the model, and each gets its own rows back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np

from savedmodels.server.lifetimes import Cancellation
from savedmodels.wire.batches import join

Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(eq=False)
class _Request:
    inputs: Arrays
    num_rows: int
    answer: Future[Outputs] = field(default_factory=Future)
    is_abandoned: bool = False


@dataclass(eq=False)
class _Batch:
    requests: list[_Request] = field(default_factory=list)
    num_rows: int = 0
    closed: threading.Event = field(default_factory=threading.Event)
    running: list[_Request] = field(default_factory=list)  # those that the call of the model is for
    cancellation: Cancellation | None = None  # of that call


class Batcher:
    """Batches requests of one signature of one version.

    The first request of a batch waits for others, in its own thread, until the batch is full or the time is up. A batch
    that fails is taken apart, and each of its requests is tried by itself: one that is wrong does not fail the others.

    Args:
        run: calls the model; the cancellation stops it.
        executor: runs the batches.
        max_rows: of a batch. A request of as many or more is a batch by itself.
        max_wait_seconds: from a batch's first request.
        observe: told the number of requests and rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[Arrays, Cancellation], Outputs],
        executor: Executor,
        *,
        max_rows: int,
        max_wait_seconds: float,
        observe: Callable[[int, int], None],
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_rows = max_rows
        self._max_wait_seconds = max_wait_seconds
        self._observe = observe
        self._lock = threading.Lock()
        self._open: dict[Shapes, _Batch] = {}

    def submit(self, inputs: Arrays, num_rows: int) -> tuple[Future[Outputs], Callable[[], None]]:
        """Adds a request; waits, at most `max_wait_seconds`, if it is a batch's first.

        Args:
            inputs: checked, batch first.
            num_rows: of the request.

        Returns:
            Its answer to come, and what to call once nobody waits for it: a call of the model that no request waits for
            any more is stopped.
        """
        request = _Request(inputs, num_rows)
        # requests go together where only their numbers of rows differ
        key = tuple(sorted((name, array.shape[1:]) for name, array in inputs.items()))
        with self._lock:
            batch = self._open.get(key)
            if batch is not None and batch.num_rows + num_rows > self._max_rows:
                self._close(key, batch)
                batch = None
            is_first = batch is None
            if batch is None:
                batch = self._open[key] = _Batch()
            batch.requests.append(request)
            batch.num_rows += num_rows
            if batch.num_rows >= self._max_rows:
                self._close(key, batch)
        if is_first and not batch.closed.wait(self._max_wait_seconds):
            with self._lock:
                if self._open.get(key) is batch:
                    self._close(key, batch)
        return request.answer, lambda: self._abandon(request, batch)

    def _abandon(self, request: _Request, batch: _Batch) -> None:
        if request.answer.cancel():
            return  # not begun
        with self._lock:
            request.is_abandoned = True
            cancellation = batch.cancellation if all(each.is_abandoned for each in batch.running) else None
        if cancellation is not None:
            cancellation.start()

    def _close(self, key: Shapes, batch: _Batch) -> None:
        """No more requests; off it goes. Under the lock."""
        del self._open[key]
        batch.closed.set()
        try:
            self._executor.submit(self._answer, batch)
        except RuntimeError as error:  # the executor has been shut down
            for request in batch.requests:
                request.answer.set_exception(error)

    def _answer(self, batch: _Batch) -> None:
        waiting = [request for request in batch.requests if request.answer.set_running_or_notify_cancel()]
        if not waiting:
            return
        self._observe(len(waiting), sum(request.num_rows for request in waiting))
        if len(waiting) > 1:
            try:
                outputs = self._call(batch, waiting, join([request.inputs for request in waiting]))
                parts = self._split(waiting, outputs)
            except Exception:  # whose fault it was shows below
                parts = None
            if parts is not None:
                for request, part in zip(waiting, parts, strict=True):
                    request.answer.set_result(part)
                return
        for request in waiting:
            try:
                request.answer.set_result(self._call(batch, [request], request.inputs))
            except BaseException as error:
                request.answer.set_exception(error)

    def _call(self, batch: _Batch, requests: list[_Request], inputs: Arrays) -> Outputs:
        cancellation = Cancellation()
        with self._lock:
            batch.running, batch.cancellation = requests, cancellation
            if all(request.is_abandoned for request in requests):
                raise RuntimeError("nobody waits for the answer")
        return self._run(inputs, cancellation)

    def _split(self, requests: list[_Request], outputs: Outputs) -> list[Outputs] | None:
        """Each request's rows; None where an output has not one row for each row of the inputs."""
        ends = np.cumsum([request.num_rows for request in requests])
        if any(array.ndim == 0 or len(array) != ends[-1] for array in outputs.values()):
            return None
        pieces = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
        return [{name: pieces[name][index] for name in pieces} for index in range(len(requests))]
