"""SIGTERM and Ctrl-C: a program ends what it must first, and then with the exit code that it meant."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes a SIGTERM or SIGINT for the program to act on when it can; handlers are put back at the end.

    Outside the main thread, where Python takes no handlers, it notes nothing.

    Args:
        tell: called with the signal's name when it comes.
        second_acts_at_once: leave a second signal to the handlers that were there before; else it is noted like the
            first.

    Example:
        >>> with StopSignals() as signals:
        ...     while not signals.received:
        ...         step()
    """

    def __init__(self, tell: Callable[[str], None] | None = None, *, second_acts_at_once: bool = True) -> None:
        self.received: str | None = None
        self._tell, self._second_acts_at_once = tell, second_acts_at_once
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if _takes_handlers():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def ignore_until_exit(self) -> None:
        """As `ignore_stop_signals`, with no moment at which the handlers of before are back."""
        self._before = {}
        ignore_stop_signals()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        if self._tell is not None:
            self._tell(self.received)
        if self._second_acts_at_once:
            signal.signal(number, self._before.get(number, signal.SIG_IGN))


def ignore_stop_signals() -> None:
    """From here on the process ends with the exit code that it has: SIGTERM and SIGINT no longer end it.

    A handler would not do: the interpreter puts the default action back while it finishes, for all signals but those
    that are ignored, and one that comes then would end the process with -15.
    """
    if _takes_handlers():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _takes_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()
