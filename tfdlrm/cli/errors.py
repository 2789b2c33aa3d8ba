"""From an exception to the one line that a user of the command line reads."""

from __future__ import annotations

import errno
import re
import sys

# A failed check inside a graph arrives wrapped: where the op was made, and then the text it was given.
_ASSERTION = re.compile(r"assertion failed: \[(.*?)\](?: \[.*?\])*(?:\s*\[\[.*|\s*$)", re.DOTALL)
_NODE = re.compile(r"\s*\[\[\{\{(?:function_)?node .*", re.DOTALL)
_PYTHON = re.compile(r"(?:\w+Error|\w+Exception): (.*?)\s*\bTraceback \(most recent call last\)", re.DOTALL)
_READ_ONLY = (errno.EACCES, errno.EROFS, errno.EPERM)


def is_expected(error: Exception) -> bool:
    """Whether an error speaks of usage, config, data or surroundings, and not of a defect of the program."""
    if isinstance(error, (NotImplementedError, RecursionError)):
        return False
    return isinstance(error, (ValueError, OSError, ImportError, RuntimeError)) or _is_graph_error(error)


def one_line(error: Exception) -> str:
    """The message of an error, on one line."""
    if _is_graph_error(error):
        text = str(getattr(error, "message", error))
        text = failed_assertion(text) or _python_error(text) or _NODE.sub("", text)
    elif isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        text = f"{error.filename}: {error.strerror}."
        if error.errno in _READ_ONLY:
            text += " Give a place that can be written."
    else:
        text = str(error)
    return " ".join(text.split()) or type(error).__name__


def _python_error(text: str) -> str | None:
    """What a Python function that a graph calls has raised, without its traceback: readers of rows are such."""
    found = _PYTHON.search(text)
    return None if found is None else found.group(1)


def failed_assertion(text: str) -> str | None:
    """What a failed check inside a graph was given to say, from the message of whatever error it came in."""
    found = _ASSERTION.search(text)
    return found.group(1).replace("\\'", "'") if found else None


def _is_graph_error(error: Exception) -> bool:
    """Whether TensorFlow's runtime raised it; asks without importing TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)
