"""Importing TensorFlow without its start-up notes, which drown what a command has to say."""

from __future__ import annotations

import os
import re
import sys
import tempfile

_NO_DRIVER = "Could not find cuda drivers"
_NO_GPU = "failed call to cuInit"

# Notes of the C++ runtime at level INFO, and the line that introduces them.
_NOTE = re.compile(r"I\d{4} |WARNING: All log messages before absl::InitializeLog|To enable the following instructions")


def import_tensorflow() -> None:
    """Imports TensorFlow; of what it writes to stderr meanwhile only notes are left out.

    Its own switch, `TF_CPP_MIN_LOG_LEVEL`, comes too late for notes of the import itself.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)  # C++ writes to the descriptor, whatever sys.stderr is
    with tempfile.TemporaryFile("w+", errors="replace") as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow as tf

            tf.config.list_physical_devices()  # the first look for a GPU speaks, too
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            _replay(notes.readlines())


def _replay(lines: list[str]) -> None:
    """Writes to stderr what is no mere note. That a machine without a GPU driver has no GPU is one."""
    no_driver = any(_NO_DRIVER in line for line in lines)
    for line in lines:
        if not _NOTE.match(line) and not (no_driver and _NO_GPU in line):
            sys.stderr.write(line)
