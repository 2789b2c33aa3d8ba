"""Warm-up requests: TensorFlow Serving runs them when it loads a version, so that no user's request is the slow first.

`assets.extra/tf_serving_warmup_requests` is a TFRecord of `tensorflow.serving.PredictionLog`. Of that message this
file writes and reads the few fields that a predict request has, by protobuf's wire format: the package
`tensorflow-serving-api`, which has the classes, is not needed to export (the tests compare with it).

    PredictionLog.predict_log = 6    PredictLog.request = 1    PredictRequest.model_spec = 1, .inputs = 2 (a map:
    key = 1, value = 2, TensorProto)    ModelSpec.name = 1, .signature_name = 3

Imports nothing of this repository: the fresh process of `verify`, which cannot, loads this file by its path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000  # TensorFlow Serving refuses a version with more (WarmupConsts::kMaxNumRecords)

_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS = 1, 2
_NAME, _SIGNATURE_NAME = 1, 3
_KEY, _VALUE = 1, 2

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_VARINT_BYTES = 10


class WarmupRequest(NamedTuple):
    """One request of the file.

    Attributes:
        model_name: the model it names; TensorFlow Serving does not compare it with its own.
        signature: the signature it calls.
        inputs: name -> array; strings as an object array of bytes.
    """

    model_name: str
    signature: str
    inputs: Mapping[str, np.ndarray]


def write_warmup(
    version_folder: str | os.PathLike[str],
    model_name: str,
    requests: Mapping[str, Sequence[tuple[Mapping[str, np.ndarray], Any]]],
) -> Path:
    """Writes the warm-up requests of an export.

    Args:
        version_folder: the export, `saved_model.pb` in it or not yet.
        model_name: the name that clients will use.
        requests: signature -> (inputs, outputs) pairs as for `savedmodels.recorded.record_requests`; the outputs are
            not used.

    Returns:
        The file.

    Raises:
        ValueError: there are none, or more than TensorFlow Serving takes.

    Example:
        >>> write_warmup(folder, "clicks", {"predict": [({"user": ids}, {})]})
    """
    import tensorflow as tf

    records = [
        encode_request(WarmupRequest(model_name, signature, pair[0]))
        for signature, pairs in requests.items()
        for pair in pairs
    ]
    if not 0 < len(records) <= MAX_RECORDS:
        raise ValueError(
            f"model {model_name!r}: {len(records)} warm-up requests; TensorFlow Serving takes 1 to {MAX_RECORDS}. "
            "Give a few for each signature."
        )
    path = Path(version_folder) / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for record in records:
                writer.write(record)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_warmup(version_folder: str | os.PathLike[str]) -> list[WarmupRequest]:
    """Reads the warm-up requests of an export, in order.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file cannot be read, or a record is no predict request; says which.

    Example:
        >>> [request.signature for request in read_warmup(folder)]
        ['serving_default', 'predict', 'rank', 'embed']
    """
    import tensorflow as tf

    path = Path(version_folder) / WARMUP_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: there are no warm-up requests. Export the model again.")
    requests: list[WarmupRequest] = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            requests.append(decode_request(record))
    except (tf.errors.OpError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: record {len(requests)} cannot be read: {reason}. Export the model again.") from error
    return requests


def encode_request(request: WarmupRequest) -> bytes:
    """A request as a serialized `PredictionLog`."""
    import tensorflow as tf

    inputs = b""
    for name, array in request.inputs.items():
        array = np.asarray(array)
        is_text = array.dtype.kind in "OSU"
        tensor = tf.make_tensor_proto(array, tf.string if is_text else None, array.shape).SerializeToString()
        inputs += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    model_spec = _field(_NAME, request.model_name.encode()) + _field(_SIGNATURE_NAME, request.signature.encode())
    return _field(_PREDICT_LOG, _field(_REQUEST, _field(_MODEL_SPEC, model_spec) + inputs))


def decode_request(record: bytes) -> WarmupRequest:
    """The request in a serialized `PredictionLog`.

    Raises:
        ValueError: it is none, or not of a predict request.
    """
    model_name = signature = ""
    inputs: dict[str, np.ndarray] = {}
    logs = _messages(record, _PREDICT_LOG)
    if not logs:
        raise ValueError("it is no predict request.")
    for log in logs:
        for request in _messages(log, _REQUEST):
            for spec in _messages(request, _MODEL_SPEC):
                model_name = "".join(text.decode() for text in _messages(spec, _NAME)[-1:]) or model_name
                signature = "".join(text.decode() for text in _messages(spec, _SIGNATURE_NAME)[-1:]) or signature
            for entry in _messages(request, _INPUTS):
                key, value = (b"".join(_messages(entry, number)[-1:]) for number in (_KEY, _VALUE))
                inputs[key.decode()] = _array(key.decode(), value)
    return WarmupRequest(model_name, signature or "serving_default", inputs)


def _array(name: str, serialized: bytes) -> np.ndarray:
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto()
    try:
        proto.ParseFromString(serialized)
        return np.asarray(tf.make_ndarray(proto))
    except (DecodeError, TypeError, ValueError) as error:
        raise ValueError(f"input {name!r} is no tensor: {error}") from error


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _messages(message: bytes, number: int) -> list[bytes]:
    """Contents of one field, which is text or a message, as often as it is there; other fields are passed over."""
    return [content for found, content in _fields(message) if found == number]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the fields that have a length; numbers of fixed or variable width are passed over."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, at = _read_varint(message, at)
            if length > len(message) - at:
                raise ValueError(f"a field of {length} bytes has {len(message) - at} left.")
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} is unknown.")
    if at > len(message):
        raise ValueError("it ends inside a field.")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if at + i >= len(message):
            raise ValueError("it ends inside a number.")
        value |= (message[at + i] & 0x7F) << 7 * i
        if message[at + i] < 0x80:
            return value, at + i + 1
    raise ValueError(f"a number has more than {_MAX_VARINT_BYTES} bytes.")
