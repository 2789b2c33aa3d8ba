"""SIGTERM and Ctrl-C: first a checkpoint, then a clean end."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes a SIGTERM or SIGINT for training to act on after the step under way; a second one acts at once.

    Outside the main thread, where Python takes no handlers, it notes nothing.

    Example:
        >>> with StopSignals() as signals:
        ...     while not signals.received:
        ...         step()
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        print(
            f"{self.received}: writing a checkpoint after this step, then stopping. Once more stops at once.",
            file=sys.stderr,
            flush=True,
        )
        signal.signal(number, self._before[number])
