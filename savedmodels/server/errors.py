"""What went wrong with a request: one table from an exception to a gRPC code to an HTTP status, and clean messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from savedmodels.wire.arrays import InputError

# gRPC code -> HTTP status, TensorFlow Serving's (model_servers/http_server.cc)
HTTP_STATUS: Mapping[str, int] = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
# A model's own error, by the class in `tf.errors`. What is not here is the server's or the model's fault: INTERNAL.
TENSORFLOW_CODES: Mapping[str, str] = {
    "InvalidArgumentError": "INVALID_ARGUMENT",
    "OutOfRangeError": "INVALID_ARGUMENT",
    "ResourceExhaustedError": "RESOURCE_EXHAUSTED",
    "UnavailableError": "UNAVAILABLE",
    "DeadlineExceededError": "DEADLINE_EXCEEDED",
}
MAX_MESSAGE_CHARACTERS = 2000  # gRPC sends messages as a header, of 8 KiB at most; an op's may quote a whole request
INTERNAL_TEXT = "The model failed on this request; the server's log says how."

_ASSERTION = re.compile(r"assertion failed: \[((?:[^\]\\]|\\.)*)\]", re.DOTALL)
# Where TensorFlow's runtime found it: text before and after what the op itself said.
_BEFORE = re.compile(
    r"\A(\{\{function_node \S+\}\}\s*)?(Graph execution error:\s*)?"
    r"(Detected at node .*?<stack traces unavailable>\s*)?",
    re.DOTALL,
)
_NODE = re.compile(r"\s*\[\[\{\{(?:function_)?node .*", re.DOTALL)
_OP = re.compile(r"\s*\[Op:\S*\].*\Z", re.DOTALL)
_FUNCTION = re.compile(r"^\s*\d+ root error\(s\) found\.\s*(\(0\)\s*[A-Z_a-z ]+:\s*)?", re.DOTALL)


class ServingError(Exception):
    """An answer other than the one asked for.

    Args:
        code: of `HTTP_STATUS`.
        message: names the object, the value and the fix; cut to `MAX_MESSAGE_CHARACTERS`.
    """

    def __init__(self, code: str, message: str) -> None:
        if len(message) > MAX_MESSAGE_CHARACTERS:
            message = message[:MAX_MESSAGE_CHARACTERS] + "…"
        super().__init__(message)
        self.code = code
        self.message = message


def from_exception(error: BaseException) -> ServingError:
    """The answer to a request that raised.

    Example:
        >>> from_exception(InputError("input 'user': ...")).code
        'INVALID_ARGUMENT'
    """
    if isinstance(error, ServingError):
        return error
    if isinstance(error, InputError):
        return ServingError("INVALID_ARGUMENT", str(error))
    code = _tensorflow_code(error)
    return ServingError("INTERNAL", INTERNAL_TEXT) if code is None else ServingError(code, graph_message(error))


def _tensorflow_code(error: BaseException) -> str | None:
    for kind in type(error).__mro__:
        if kind.__name__ in TENSORFLOW_CODES and kind.__module__.startswith("tensorflow."):
            return TENSORFLOW_CODES[kind.__name__]
    return None


def graph_message(error: Any) -> str:
    """What an op said, without where in the graph it said it, on one line."""
    text = str(getattr(error, "message", error))
    found = _ASSERTION.search(text)
    if found:
        text = found.group(1).replace("\\'", "'")
    else:
        text = _FUNCTION.sub("", _BEFORE.sub("", text))
        text = _OP.sub("", _NODE.sub("", text))
    return " ".join(text.split()) or type(error).__name__
