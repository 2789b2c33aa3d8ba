"""Hands work to workers and waits for it, in whatever order it is done."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

from tfdlrm.distribute.errors import ServerLostError

_POLL_SECONDS = 0.02
_CONTEXT_GONE = "Unable to find a context_id"


_HAPPENED = re.compile(r"[Ff]ailed to connect|reset by peer|Socket closed|UNAVAILABLE|context_id|refused")
_ASSERTION = re.compile(r"assertion failed: \[(.*?)\]\n", re.DOTALL)


class Dispatcher:
    """Work under way on the workers. TensorFlow's coordinator gives a lost worker's work to another one.

    Args:
        coordinator: of the strategy.
    """

    def __init__(self, coordinator: tf.distribute.coordinator.ClusterCoordinator):
        self._coordinator = coordinator
        self._values: dict[int, Any] = {}

    @property
    def num_outstanding(self) -> int:
        """Work handed out and not finished."""
        return len(self._values)

    def submit(self, key: int, function: Any, args: tuple) -> None:
        """Hands out work.

        Args:
            key: to know the result by; new.
            function: a concrete function.
            args: its arguments.
        """
        try:
            self._values[key] = self._coordinator.schedule(function, args=args)
        except Exception as error:
            raise explained(error) from error

    def wait(self) -> list[tuple[int, Any]]:
        """Keys and results of what has finished; waits for at least one.

        Raises:
            ServerLostError: a parameter server is gone.
            tf.errors.OpError: what the work itself raised.
        """
        while True:
            done = [key for key, value in self._values.items() if value._status_available_event.is_set()]
            if done:
                return [(key, self._result(self._values.pop(key))) for key in done]
            if self._coordinator._cluster.closure_queue._error is not None:
                self._raise_first_error()
            next(iter(self._values.values()))._status_available_event.wait(_POLL_SECONDS)

    def _result(self, value: Any) -> Any:
        try:
            return value.get()
        except Exception as error:
            # the first error of all; it cancelled the others, and the coordinator gives it once
            self._raise_first_error()
            raise explained(error) from error

    def _raise_first_error(self) -> None:
        try:
            self._coordinator.join()
        except Exception as error:
            raise explained(error) from error


def _reason(text: str) -> str:
    """Of an error's lines the one that says what happened, with the address where it has one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if _HAPPENED.search(line)]
    return min(told or lines, key=lambda line: "ipv4:" not in line and "ipv6:" not in line)[:300].rstrip(".")


def explained(error: Exception) -> Exception:
    """The error itself, or what it means for the cluster."""
    text = str(error)
    lost = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError))
    if lost and ("job:ps" in text or _CONTEXT_GONE in text):
        return ServerLostError(
            f"a parameter server is gone: {_reason(text)}. Its rows are those of the last checkpoint: start it again, "
            "and the training from there."
        )
    if isinstance(error, tf.errors.InvalidArgumentError) and (found := _ASSERTION.search(text)):
        # as on one machine, without the graph and the network around it
        return tf.errors.InvalidArgumentError(None, None, re.sub(r"\\+'", "'", found[1]))
    return error
