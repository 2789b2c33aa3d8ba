"""From a request's inputs to a model's outputs, whichever interface it came by."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from savedmodels.server.batching import Batcher
from savedmodels.server.errors import ServingError, from_exception
from savedmodels.server.lifetimes import Call, Cancellation, Lifetime, Share, Taken
from savedmodels.server.loading import LoadedModel
from savedmodels.server.metrics import Metrics
from savedmodels.server.options import ServerOptions
from savedmodels.server.store import ModelStore
from savedmodels.server.versions import Lease
from savedmodels.wire.batches import check_arrays, check_names, wrong_shape
from savedmodels.wire.signatures import SignatureSpec
from tfdlrm.checks import quoted

logger = logging.getLogger("tfdlrm.serve")

MICROSECOND = 1e-6
LARGE_REQUEST_BYTES = 2**18  # a hundredth of a second of parsing


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which signature of which version of which model is asked.

    Args:
        model: its name.
        version: None for the newest available, or the one that `label` names.
        label: empty for none.
        signature: empty for the default one.
    """

    model: str
    version: int | None = None
    label: str = ""
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Outputs by name, and who gave them."""

    model: str
    version: int
    signature: SignatureSpec
    outputs: Mapping[str, np.ndarray]


class Inference:
    """Checks and runs requests.

    Args:
        store: the models.
        options: limits, batching.
        metrics: told of every call.
    """

    def __init__(self, store: ModelStore, options: ServerOptions, metrics: Metrics) -> None:
        self.store = store
        self._options = options
        self.max_rows, self.max_bytes = options.max_rows, options.max_message_bytes
        self._metrics = metrics
        # Parsing holds the interpreter's lock: of large requests one at a time does, so that small ones wait for one.
        self._parsing = Share(1)
        self._executor = ThreadPoolExecutor(options.num_threads, thread_name_prefix="model")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._num_running = 0

    def turn(self, num_bytes: int, life: Lifetime) -> Taken:
        """The turn to parse a request, waited for where it is large.

        Raises:
            ServingError: the request's lifetime ended.
        """
        return self._parsing.take(num_bytes // LARGE_REQUEST_BYTES, life)

    def predict(
        self,
        target: Target,
        make_inputs: Callable[[SignatureSpec], Mapping[str, np.ndarray]],
        *,
        call: Call,
        output_filter: Sequence[str] = (),
        check_signature: Callable[[SignatureSpec], Any] | None = None,
        held: Lease | None = None,
    ) -> Answer:
        """Runs a signature.

        Args:
            target: what is asked.
            make_inputs: from the signature to arrays of its dtypes.
            call: of the request; when its lifetime ends, so does the work.
            output_filter: names of outputs to give; all where empty.
            check_signature: raises where the signature is not of the kind asked for.
            held: the version to ask, where somebody holds it already.

        Raises:
            ServingError: with the code of what went wrong.
        """
        model = self.store.model(target.model)
        call.seen.model = target.model
        lease = model.lease(target.version, target.label) if held is None else held.share()
        is_running = False
        try:
            signature = lease.model.signature(target.signature)
            call.seen.signature = signature.name
            if check_signature is not None:
                check_signature(signature)
            _check_filter(signature, output_filter)
            call.life.check()
            arrays = dict(make_inputs(signature))
            call.turn.release()
            call.life.check()
            check_names(signature, list(arrays))
            num_rows = check_arrays(signature, arrays, self._options.max_rows, exact_shapes=lease.model.exact_shapes)
            future, abandon = self._start(lease, target.model, signature, arrays, num_rows)
            is_running = True
        finally:
            if not is_running:
                lease.release()
        try:
            outputs = self._wait(future, abandon, call.life)
        except ServingError as error:
            mismatch = wrong_shape(signature, arrays)
            if mismatch is None or error.code not in ("INVALID_ARGUMENT", "INTERNAL"):
                raise
            # the graph was given fewer dimensions than the signature has, and did not do with them
            said = f"{error.message} " if error.code == "INVALID_ARGUMENT" else ""
            raise ServingError("INVALID_ARGUMENT", said + mismatch) from error
        if output_filter:
            outputs = {name: outputs[name] for name in output_filter}
        return Answer(model=target.model, version=lease.number, signature=signature, outputs=outputs)

    def _start(
        self, lease: Lease, model: str, signature: SignatureSpec, arrays: Mapping[str, np.ndarray], num_rows: int
    ) -> tuple[Future[dict[str, np.ndarray]], Callable[[], None]]:
        """Hands a request over; the version stays in memory until it has ended, whoever still waits for it.

        Returns:
            The answer to come, and what to call once nobody waits for it.
        """
        with self._lock:
            if self._num_running >= self._options.max_in_flight:
                raise ServingError(
                    "UNAVAILABLE", f"{self._num_running} requests are being answered, as many as allowed. Try again."
                )
            self._num_running += 1
        try:
            if self._options.max_batch_rows is not None and signature.is_batch_first and num_rows:
                batcher = lease.model.batcher(signature.name, lambda: self._batcher(lease.model, model, signature))
                future, abandon = batcher.submit(arrays, num_rows)
            else:
                self._metrics.batch(model, signature.name, 1, num_rows)
                cancellation = Cancellation()
                future = self._executor.submit(lease.model.run, signature.name, arrays, cancellation)
                abandon = _abandoning(future, cancellation)
        except BaseException:
            self._end()
            raise

        def end(_: Future[dict[str, np.ndarray]]) -> None:
            self._end()
            lease.release()

        future.add_done_callback(end)
        return future, abandon

    def _end(self) -> None:
        with self._lock:
            self._num_running -= 1
            self._idle.notify_all()

    def _batcher(self, loaded: LoadedModel, model: str, signature: SignatureSpec) -> Batcher:
        assert self._options.max_batch_rows is not None
        return Batcher(
            lambda inputs, cancellation: loaded.run(signature.name, inputs, cancellation),
            self._executor,
            max_rows=self._options.max_batch_rows,
            max_wait_seconds=self._options.max_batch_wait_microseconds * MICROSECOND,
            observe=lambda requests, rows: self._metrics.batch(model, signature.name, requests, rows),
        )

    def _wait(
        self, future: Future[dict[str, np.ndarray]], abandon: Callable[[], None], life: Lifetime
    ) -> dict[str, np.ndarray]:
        try:
            outputs: dict[str, np.ndarray] = life.result(future)
        except Exception as error:
            if not future.done():
                abandon()
            raise _answered(error) from error
        return outputs

    def drain(self, timeout_seconds: float) -> bool:
        """Waits for requests that run.

        Returns:
            Whether all have ended.
        """
        with self._idle:
            is_idle = self._idle.wait_for(lambda: self._num_running == 0, timeout_seconds)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return is_idle


def _abandoning(future: Future[Any], cancellation: Cancellation) -> Callable[[], None]:
    def abandon() -> None:
        if not future.cancel():  # begun
            cancellation.start()

    return abandon


def _check_filter(signature: SignatureSpec, output_filter: Sequence[str]) -> None:
    for position, name in enumerate(output_filter):
        if name not in signature.outputs:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"output {quoted(name[:100])} is unknown to signature {quoted(signature.name)}. "
                f"It gives: {', '.join(signature.outputs)}.",
            )
        if name in output_filter[:position]:
            raise ServingError("INVALID_ARGUMENT", f"output {quoted(name)} is asked for twice.")


def _answered(error: BaseException) -> ServingError:
    answer = from_exception(error)
    if answer.code == "INTERNAL":
        logger.error("a model failed on a request", exc_info=error)
    return answer
