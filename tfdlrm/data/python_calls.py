"""Python functions inside a graph, such that the interpreter can end while a pipeline is still alive.

`tf.data` calls them from its own threads. A thread that asks for the interpreter's lock while the interpreter shuts
down never gets it, and the pipeline's destructor then waits for that thread for ever. So before the interpreter shuts
down, calls under way are waited for, and new ones refused.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import script_ops

# Long enough for a thread that has called but does not yet run, to run and be counted or refused.
_GRACE_SECONDS = 0.05


class _Calls:
    """Counts the calls under way, and refuses new ones once the process ends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self._ending = False

    def __enter__(self) -> None:
        with self._changed:
            if self._ending:
                raise RuntimeError("the process is ending: no more data are read")
            self._under_way += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Wait for the calls under way; there are none afterwards."""
        with self._changed:
            self._ending = True
            self._changed.wait_for(lambda: not self._under_way)
        time.sleep(_GRACE_SECONDS)


_calls = _Calls()
atexit.register(_calls.end)

_registered: dict[str, Callable[..., Any]] = {}  # TensorFlow's own registry holds weak references


def python_call(function: Callable[..., Any], inputs: Sequence[tf.Tensor], output_types: Any) -> Any:
    """`tf.numpy_function`, safe at the end of the process.

    Args:
        function: of NumPy arrays to NumPy arrays.
        inputs: tensors handed to it.
        output_types: dtype of its result, or a list of dtypes.
    """

    return tf.numpy_function(_guarded(function), inputs, output_types, stateful=True)


def register(name: str, function: Callable[..., Any]) -> None:
    """Makes a function known to this process, for graphs that other processes build and run here.

    Args:
        name: the same in all processes.
        function: of NumPy arrays to a list of NumPy arrays.
    """
    _registered[name] = _guarded(function)
    script_ops._py_funcs._funcs[name] = _registered[name]


def registered_call(name: str, inputs: Sequence[tf.Tensor], output_types: Sequence[tf.DType]) -> list[tf.Tensor]:
    """Calls what is registered under a name in the process that the operation is placed at."""
    return tf.raw_ops.PyFunc(input=list(inputs), token=name, Tout=list(output_types))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arrays: Any) -> Any:
        with _calls:
            return function(*arrays)

    return guarded
