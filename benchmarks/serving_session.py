"""A SavedModel through TensorFlow's C API: what a server process pays for a call, without Python's runtime.

`TF_LoadSessionFromSavedModel` and `TF_SessionRun` are called with ctypes, which adds some microseconds a call and
lets go of Python's lock while TensorFlow works, so that several threads may call at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")
TAG = b"serve"
OK = 0
# TF_DataType of tensorflow/c/tf_datatype.h
DTYPES = {"float32": 1, "int32": 3, "int64": 9}
NAMES_OF_DTYPES = {number: name for name, number in DTYPES.items()}
CALLER_THREAD = -1  # of inter_op_threads: ops run in the thread that calls, none is handed to another


class _Output(Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


class _Buffer(Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


# name -> (result, arguments), of tensorflow/c/c_api.h
_FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_NewStatus": (c_void_p, ()),
    "TF_DeleteStatus": (None, (c_void_p,)),
    "TF_GetCode": (c_int, (c_void_p,)),
    "TF_Message": (c_char_p, (c_void_p,)),
    "TF_NewSessionOptions": (c_void_p, ()),
    "TF_SetConfig": (None, (c_void_p, c_char_p, c_size_t, c_void_p)),
    "TF_NewGraph": (c_void_p, ()),
    "TF_NewBuffer": (POINTER(_Buffer), ()),
    "TF_DeleteBuffer": (None, (POINTER(_Buffer),)),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        (c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(_Buffer), c_void_p),
    ),
    "TF_GraphOperationByName": (c_void_p, (c_void_p, c_char_p)),
    "TF_AllocateTensor": (c_void_p, (c_int, POINTER(c_int64), c_int, c_size_t)),
    "TF_DeleteTensor": (None, (c_void_p,)),
    "TF_TensorData": (c_void_p, (c_void_p,)),
    "TF_TensorType": (c_int, (c_void_p,)),
    "TF_NumDims": (c_int, (c_void_p,)),
    "TF_Dim": (c_int64, (c_void_p, c_int)),
    "TF_SessionRun": (
        None,
        (
            *(c_void_p, c_void_p, POINTER(_Output), POINTER(c_void_p), c_int),
            *(POINTER(_Output), POINTER(c_void_p), c_int, c_void_p, c_int, c_void_p, c_void_p),
        ),
    ),
}


def _load_library() -> ctypes.CDLL:
    import tensorflow as tf

    folder = Path(tf.sysconfig.get_lib())
    for name in LIBRARIES:
        library = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Call:
    """One signature's inputs as TensorFlow's own tensors: made once, run as often as one likes, from any thread."""

    def __init__(self, session: Session, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]):
        self._session, self._outputs = session, tuple(outputs)
        names, results = session.tensor_names(signature)
        missing = sorted(set(names) - set(inputs))
        if missing:
            raise ValueError(f"signature {signature!r}: inputs {missing} are missing. Give one array for each.")
        self._sources = (_Output * len(names))(*(session.output(name) for name in names.values()))
        self._tensors = (c_void_p * len(names))(*(session.tensor(inputs[name]) for name in names))
        self._targets = (_Output * len(outputs))(*(session.output(results[name]) for name in outputs))

    def run(self) -> dict[str, np.ndarray]:
        """The outputs, copied.

        Raises:
            RuntimeError: TensorFlow refused the call.
        """
        library = self._session.library
        status = library.TF_NewStatus()
        results = (c_void_p * len(self._outputs))()
        library.TF_SessionRun(
            *(self._session.handle, None, self._sources, self._tensors, len(self._tensors)),
            *(self._targets, results, len(results), None, 0, None, status),
        )
        self._session.check(status, "TF_SessionRun")
        return {name: self._session.take(tensor) for name, tensor in zip(self._outputs, results, strict=True)}

    def __del__(self) -> None:
        for tensor in getattr(self, "_tensors", ()):
            self._session.library.TF_DeleteTensor(tensor)


class Session:
    """A SavedModel that TensorFlow's C API loaded. It lives as long as the process.

    Args:
        folder: of the SavedModel.
        intra_op_threads: that one op may use.
        inter_op_threads: ops that may run at once; `CALLER_THREAD` runs all in the thread that calls.

    Raises:
        RuntimeError: TensorFlow could not load it.
    """

    def __init__(self, folder: Path, *, intra_op_threads: int, inter_op_threads: int) -> None:
        from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

        self.library = library = _load_library()
        options, status = library.TF_NewSessionOptions(), library.TF_NewStatus()
        config = config_pb2.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads, inter_op_parallelism_threads=inter_op_threads
        ).SerializeToString()
        library.TF_SetConfig(options, config, len(config), status)
        self._graph, buffer = library.TF_NewGraph(), library.TF_NewBuffer()
        self.handle = library.TF_LoadSessionFromSavedModel(
            *(options, None, str(folder).encode(), (c_char_p * 1)(TAG), 1, self._graph, buffer, status)
        )
        self.check(status, str(folder))
        graph = meta_graph_pb2.MetaGraphDef.FromString(ctypes.string_at(buffer.contents.data, buffer.contents.length))
        self.signatures = dict(graph.signature_def)
        library.TF_DeleteBuffer(buffer)

    def tensor_names(self, signature: str) -> tuple[dict[str, str], dict[str, str]]:
        """Inputs and outputs of a signature: name -> "op:index".

        Raises:
            KeyError: there is no such signature.
        """
        if signature not in self.signatures:
            raise KeyError(f"no signature {signature!r}; the SavedModel has {sorted(self.signatures)}.")
        found = self.signatures[signature]
        return tuple({name: info.name for name, info in each.items()} for each in (found.inputs, found.outputs))

    def call(self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ("probability",)) -> Call:
        """A call that is ready to run."""
        return Call(self, signature, inputs, outputs)

    def output(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        return _Output(self.library.TF_GraphOperationByName(self._graph, operation.encode()), int(index))

    def tensor(self, array: np.ndarray) -> int:
        shape = np.shape(array)
        array = np.ascontiguousarray(array)
        dims = (c_int64 * max(len(shape), 1))(*shape)
        tensor = self.library.TF_AllocateTensor(DTYPES[array.dtype.name], dims, len(shape), array.nbytes)
        ctypes.memmove(self.library.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def take(self, tensor: int) -> np.ndarray:
        """The values of a tensor, which is deleted."""
        library = self.library
        shape = [library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor))]
        array = np.empty(shape, NAMES_OF_DTYPES[library.TF_TensorType(tensor)])
        ctypes.memmove(array.ctypes.data, library.TF_TensorData(tensor), array.nbytes)
        library.TF_DeleteTensor(tensor)
        return array

    def check(self, status: int, what: str) -> None:
        code, message = self.library.TF_GetCode(status), self.library.TF_Message(status)
        self.library.TF_DeleteStatus(status)
        if code != OK:
            raise RuntimeError(f"{what}: {message.decode(errors='replace')}")
