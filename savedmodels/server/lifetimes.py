"""How long a request is worked for: until its deadline, or until its client has gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from savedmodels.server.errors import ServingError
from savedmodels.server.metrics import Request

TURN_SECONDS = 0.1  # between two looks for the client


class Lifetime:
    """Of one request; asked between the steps of its work, and while it waits.

    Args:
        seconds: that it may take, from now.
        has_gone: whether its client has; cheap, as it is asked again and again.

    Example:
        >>> life = Lifetime(0.0)
        >>> life.check()
        Traceback (most recent call last):
        savedmodels.server.errors.ServingError: The request was not answered within its time.
    """

    def __init__(self, seconds: float, has_gone: Callable[[], bool] = lambda: False) -> None:
        self._start = time.monotonic()
        self._deadline = self._start + seconds
        self._has_gone = has_gone

    @property
    def remaining(self) -> float:
        """Seconds, 0 or more."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Ends work that nobody waits for.

        The client is looked for once the request is older than `TURN_SECONDS`: one that has said all it had to say, and
        closed its half of the connection, has a quick answer all the same.

        Raises:
            ServingError: DEADLINE_EXCEEDED or CANCELLED.
        """
        if not self.remaining:
            raise ServingError("DEADLINE_EXCEEDED", "The request was not answered within its time.")
        if time.monotonic() - self._start >= TURN_SECONDS and self._has_gone():
            raise ServingError("CANCELLED", "The client has gone.")

    def result(self, future: Future[Any]) -> Any:
        """What a future gives.

        Raises:
            ServingError: DEADLINE_EXCEEDED or CANCELLED: it has not given anything by then.
            Exception: its own.
        """
        while True:
            try:
                return future.result(min(TURN_SECONDS, self.remaining))
            except FutureTimeoutError:
                if future.done():
                    return future.result()  # its own error, or an answer that came meanwhile
                self.check()


class Cancellation:
    """Stops TensorFlow in the middle of a call, at the next op that looks for it, as loops and waiting ops do."""

    def __init__(self) -> None:
        from tensorflow.python.eager import cancellation

        self._manager = cancellation.CancellationManager()

    def call(self, function: Any, inputs: dict[str, Any]) -> Any:
        """Calls a concrete function so that `start` stops it."""
        return self._manager.get_cancelable_function(function)(**inputs)

    def start(self) -> None:
        """Stops calls that run and those to come."""
        self._manager.start_cancel()


class Share:
    """Something of which there is so much for all requests together: bytes of bodies, or the turn to parse a large one.

    Args:
        total: how much.

    Example:
        >>> share = Share(10)
        >>> with share.take(7, life):
        ...     pass  # others get 3 meanwhile, or wait
    """

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._changed = threading.Condition()

    def take(self, amount: int, life: Lifetime) -> Taken:
        """Waits until there is so much, or all where it asks for more than there is.

        Raises:
            ServingError: the request's lifetime ended.
        """
        amount = min(amount, self._total)
        with self._changed:
            while self._left < amount:
                life.check()
                self._changed.wait(min(TURN_SECONDS, life.remaining))
            self._left -= amount
        return Taken(lambda: self._put_back(amount))

    def _put_back(self, amount: int) -> None:
        with self._changed:
            self._left += amount
            self._changed.notify_all()


@dataclass(frozen=True, kw_only=True)
class Call:
    """What belongs to a request while it is answered.

    Args:
        life: how long somebody waits for the answer.
        seen: filled in for metrics.
        turn: to parse a large request; given back once its inputs are arrays.
    """

    life: Lifetime
    seen: Request
    turn: Taken


class Taken:
    """Gives back what was taken, once: at `release` or at the end of the block."""

    def __init__(self, put_back: Callable[[], None]) -> None:
        self._put_back: Callable[[], None] | None = put_back

    def release(self) -> None:
        """Gives it back now."""
        put_back, self._put_back = self._put_back, None
        if put_back is not None:
            put_back()

    def __enter__(self) -> Taken:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
