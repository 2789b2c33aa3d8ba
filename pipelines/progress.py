"""A line a component while a pipeline runs, and a log a component that is kept."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO


class Progress:
    """Keeps what components log and print in `<folder>/<number>-<component>.log`.

    Args:
        folder: of the logs; made.
        show: whether to print a line a component.
    """

    def __init__(self, folder: Path, *, show: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._show, self._number = folder, show, 0
        self.component, self.log = "pipeline", folder

    @contextmanager
    def of(self, component: str, ended: Callable[[], str]) -> Iterator[None]:
        """The time in which a component runs.

        Args:
            component: its name.
            ended: called at the end if there was no error; gives a word for how it ended.
        """
        self._number += 1
        self.component, self.log = component, self.folder / f"{self._number:02}-{component}.log"
        began, terminal, state = time.monotonic(), sys.stdout, "failed"
        try:
            with self.log.open("w", encoding="utf-8") as file, _into(file):
                try:
                    yield
                except KeyboardInterrupt:
                    state = "interrupted"
                    raise
                except Exception:
                    traceback.print_exc()
                    raise
                state = ended()
        finally:
            if self._show:
                print(f"{component:<24} {state:<11} {time.monotonic() - began:6.1f} s", file=terminal, flush=True)


@contextmanager
def _into(file: TextIO) -> Iterator[None]:
    """Python's output, and the records of all loggers, go to a file."""
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # TFX's is absl, whose records reach the root's handlers; TensorFlow's do not
    loggers = [logging.getLogger(name) for name in (None, "absl", "tensorflow")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.handlers[:] = [] if logger.name == "absl" else [handler]
    try:
        with redirect_stdout(file), redirect_stderr(file):
            yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
