"""The files between `verify` and the C program: a job of requests, and the answers.

Their forms are described in savedmodels/capi/replay.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfdlrm.checks import quoted

JOB_MAGIC = b"TFDLJOB1"
ANSWERS_MAGIC = b"TFDLANS1"
_STRING = 7
# TF_DataType of tensorflow/c/tf_datatype.h
_DATA_TYPES: Mapping[str, int] = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
_DTYPES: Mapping[int, np.dtype] = {code: np.dtype(name) for name, code in _DATA_TYPES.items()}


class JobRequest(NamedTuple):
    """A request by names of the graph.

    Attributes:
        feeds: tensor name (`operation:output`) -> array; strings as an object array of bytes.
        fetches: tensor names.
    """

    feeds: Mapping[str, np.ndarray]
    fetches: Sequence[str]


def encode_job(requests: Sequence[JobRequest]) -> bytes:
    """The job as bytes.

    Raises:
        ValueError: a tensor's name or an array's dtype is not possible.
    """
    parts = [JOB_MAGIC, struct.pack("<I", len(requests))]
    for request in requests:
        parts.append(struct.pack("<I", len(request.feeds)))
        for name, array in request.feeds.items():
            parts += [_output(name), *_tensor(name, array)]
        parts.append(struct.pack("<I", len(request.fetches)))
        parts += [_output(name) for name in request.fetches]
    return b"".join(parts)


def decode_answers(data: bytes) -> list[list[np.ndarray] | str]:
    """For each request its outputs in the order of its fetches, or the message of its failure.

    Raises:
        ValueError: the bytes are no answers, or not whole.
    """
    reader = _Reader(data)
    if reader.take(len(ANSWERS_MAGIC)) != ANSWERS_MAGIC:
        raise ValueError(f"the answers do not begin with {ANSWERS_MAGIC.decode()}.")
    answers: list[list[np.ndarray] | str] = []
    for _ in range(reader.u32()):
        if reader.u32():
            answers.append(reader.take(reader.u32()).decode(errors="replace"))
        else:
            answers.append([reader.tensor() for _ in range(reader.u32())])
    if reader.left:
        raise ValueError(f"the answers have {reader.left} bytes after the last.")
    return answers


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def _output(tensor: str) -> bytes:
    operation, _, output = tensor.rpartition(":")
    if not operation or not output.isdecimal():
        raise ValueError(f"tensor {quoted(tensor)} is none of the graph: <operation>:<output> is expected.")
    return _text(operation) + struct.pack("<I", int(output))


def _tensor(name: str, array: np.ndarray) -> Iterator[bytes]:
    is_text = array.dtype.kind in "OSU"
    code = _STRING if is_text else _DATA_TYPES.get(array.dtype.name)
    if code is None:
        raise ValueError(f"tensor {quoted(name)}: dtype {array.dtype} cannot be given to the C API.")
    if is_text:
        data = b"".join(struct.pack("<Q", len(element)) + element for element in array.flat)
    else:
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    yield struct.pack(f"<II{array.ndim}QQ", code, array.ndim, *array.shape, len(data))
    yield data


class _Reader:
    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError(f"the answers end too early: {size} bytes more are needed, {self.left} are left.")
        self._at += size
        return self._data[self._at - size : self._at]

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def tensor(self) -> np.ndarray:
        code, num_dimensions = self.u32(), self.u32()
        shape = [self.u64() for _ in range(num_dimensions)]
        data = self.take(self.u64())
        if code == _STRING:
            return _strings(data, shape)
        if code not in _DTYPES:
            raise ValueError(f"the answers have a tensor of data type {code}, which is not known.")
        return np.frombuffer(data, _DTYPES[code].newbyteorder("<")).astype(_DTYPES[code]).reshape(shape)


def _strings(data: bytes, shape: Sequence[int]) -> np.ndarray:
    reader, elements = _Reader(data), []
    while reader.left:
        elements.append(reader.take(reader.u64()))
    result = np.empty(len(elements), object)
    result[:] = elements
    return result.reshape(shape)
