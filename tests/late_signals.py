"""Signals that come at the worst moment: while the interpreter finishes."""

from __future__ import annotations

# Modules are torn down after Python has put the default actions of signals back; an object of `__main__` goes then.
SIGNAL_AT_THE_END = """
import os, signal
class _Late:
    def __del__(self, kill=os.kill, number=os.getpid(), signals=(signal.SIGTERM, signal.SIGINT)):
        for each in signals:
            kill(number, each)
_late = _Late()
"""
