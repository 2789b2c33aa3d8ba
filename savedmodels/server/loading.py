"""A version in memory: TensorFlow's functions behind its signatures, called with checked arrays."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from savedmodels.graph_ops import SERVE_TAG, read_saved_model
from savedmodels.manifest import MANIFEST_FILE
from savedmodels.server.batching import Batcher
from savedmodels.server.errors import ServingError
from savedmodels.server.lifetimes import Cancellation
from savedmodels.wire.signatures import (
    DEFAULT_SIGNATURE,
    INTERNAL_SIGNATURES,
    SignatureSpec,
    from_proto,
    read_signatures,
)
from tfdlrm.checks import quoted, shortened

logger = logging.getLogger("tfdlrm.serve")

LOAD_POLL_SECONDS = 0.05


class LoadedModel:
    """A SavedModel in memory.

    Args:
        folder: of the version.

    Attributes:
        signatures: specs by name, of those that can be asked.
        definitions: `SignatureDef` protos by name, for metadata.
        exact_shapes: whether inputs must have the shapes of their signature to the last 1. An export of this package's
            says what it means; of another one the graph decides, as in TensorFlow Serving.
        num_bytes: of its variables.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self.definitions = _signature_definitions(folder)
        root = tf.saved_model.load(str(folder), tags=[SERVE_TAG])
        self._functions: dict[str, Any] = dict(root.signatures)
        self._root = root  # owns the variables
        if not self._functions:
            raise ValueError(f"{folder} has no signatures, so there is nothing to call. Export it with signatures.")
        callable_ones = {name: each for name, each in self.definitions.items() if name in self._functions}
        self.signatures, self._refusals = read_signatures(callable_ones, from_proto)
        for name, why in self._refusals.items():
            logger.warning("%s: signature %s cannot be asked: %s", folder, name, why)
        self.exact_shapes = (folder / MANIFEST_FILE).is_file()
        self.num_bytes = _variable_bytes(root)
        self._batchers: dict[str, Batcher] = {}
        self._lock = threading.Lock()

    def signature(self, name: str) -> SignatureSpec:
        """A signature by the name of a request; the default one for none.

        Raises:
            ServingError: FAILED_PRECONDITION, as TensorFlow Serving has it; lists those there. INVALID_ARGUMENT: a
                tensor of it has no form in a request; names it and its dtype.
        """
        name = name or DEFAULT_SIGNATURE
        if name in self._refusals:
            raise ServingError("INVALID_ARGUMENT", f"signature {quoted(name)}: {self._refusals[name]}")
        spec = self.signatures.get(name)
        if spec is None:
            raise ServingError(
                "FAILED_PRECONDITION",
                f"signature {quoted(name[:100])} is not in the model. It has: {', '.join(sorted(self.signatures))}.",
            )
        return spec

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], cancellation: Cancellation | None = None
    ) -> dict[str, np.ndarray]:
        """Calls TensorFlow with arrays that `check_arrays` has passed.

        Args:
            signature: its name.
            inputs: arrays by name.
            cancellation: stops the call from another thread.

        Raises:
            tf.errors.OpError: the model's, of these inputs; or it was cancelled.
        """
        import tensorflow as tf

        specs = self.signatures[signature].inputs
        tensors = {name: tf.constant(array, specs[name].dtype) for name, array in _as_tensorflow_takes(inputs)}
        try:
            function = self._functions[signature]
            outputs = function(**tensors) if cancellation is None else cancellation.call(function, tensors)
        except UnicodeDecodeError as error:
            # an op's message that quotes bytes of the request: TensorFlow's own error is lost on its way to Python
            message = error.object.decode(errors="backslashreplace")
            raise tf.errors.InvalidArgumentError(None, None, message) from None
        # a scalar string would be an array of NumPy's own strings, which lose zero bytes at their end
        return {
            name: np.asarray(output.numpy(), object if output.dtype == tf.string else None)
            for name, output in outputs.items()
        }

    def batcher(self, signature: str, build: Callable[[], Batcher]) -> Batcher:
        """The one that puts together requests of a signature of this version."""
        with self._lock:
            if signature not in self._batchers:
                self._batchers[signature] = build()
            return self._batchers[signature]


@dataclass(frozen=True, kw_only=True)
class LoadLimits:
    """Of one load.

    Args:
        seconds: after which it is given up.
        max_bytes: of the version's files; None for the machine's memory.
        is_stopped: asked again and again; True gives it up.
    """

    seconds: float = 600.0
    max_bytes: int | None = None
    is_stopped: Callable[[], bool] = lambda: False


class Load:
    """A version being loaded and warmed up, on a thread of its own: one that never ends stops nobody else.

    TensorFlow cannot be stopped in the middle. A load that is given up goes on, and what it makes is dropped.
    """

    given_up: ClassVar[list[Load]] = []

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done = threading.Event()
        self._model: LoadedModel | None = None
        self._error: Exception | None = None
        self._is_given_up = False
        self._thread = threading.Thread(target=self._run, name=f"load {folder.name}", daemon=True)

    def _run(self) -> None:
        from savedmodels.server.warmup import warm_up

        try:
            model = LoadedModel(self._folder)
            warm_up(model, self._folder)
            if not self._is_given_up:
                self._model = model
        except Exception as error:
            self._error = error
        finally:
            self._done.set()

    def result(self, limits: LoadLimits) -> LoadedModel:
        """Loads, and waits for it.

        Raises:
            TimeoutError: it was given up.
            Exception: whatever the load raised.
        """
        self._thread.start()
        deadline = time.monotonic() + limits.seconds
        while not self._done.wait(LOAD_POLL_SECONDS):
            is_late = time.monotonic() > deadline
            if is_late or limits.is_stopped():
                self._is_given_up = True
                Load.given_up.append(self)
                why = f"it took longer than {limits.seconds:g} s (--load-seconds)" if is_late else "the server stops"
                raise TimeoutError(f"given up: {why}")
        if self._error is not None:
            raise self._error
        assert self._model is not None
        return self._model

    @classmethod
    def any_under_way(cls) -> bool:
        """Whether one that was given up still runs: the interpreter would wait for it at its end."""
        return any(load._thread.is_alive() for load in cls.given_up)


def _as_tensorflow_takes(inputs: Mapping[str, np.ndarray]) -> Any:
    for name, array in inputs.items():
        # an empty array of objects has no element to tell TensorFlow that it holds strings
        yield name, array.astype("S1") if array.dtype == object and array.size == 0 else array


def _variable_bytes(root: Any) -> int:
    found = [v for name in ("variables", "_variables") for v in (getattr(root, name, None) or [])]
    for function in root.signatures.values():
        found += function.variables
    # whatever kind of object holds it, and however many do: by the memory behind it
    unique = {id(getattr(v, "handle", v)): v for v in found}
    return sum(v.dtype.size * (v.shape.num_elements() or 0) for v in unique.values())


def _signature_definitions(folder: Path) -> dict[str, Any]:
    graphs = read_saved_model(folder).meta_graphs
    for meta_graph in graphs:
        if set(meta_graph.meta_info_def.tags) == {SERVE_TAG}:
            # copies: the messages themselves would keep the whole graph in memory
            return {
                name: type(definition).FromString(definition.SerializeToString())
                for name, definition in meta_graph.signature_def.items()
                if name not in INTERNAL_SIGNATURES
            }
    tags = "; ".join(", ".join(sorted(each.meta_info_def.tags)) or "none" for each in graphs)
    raise ValueError(
        f"{folder} has no graph with the one tag {quoted(SERVE_TAG)}, which TensorFlow Serving looks for. The tags of "
        f"its graphs: {shortened(tags)}. Export it with tf.saved_model.save."
    )


def free_memory() -> None:
    """Gives back what dropped models held: to Python, and from the C library to the system."""
    gc.collect()  # a loaded model is a web of cycles
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
