"""NumPy arrays <-> `TensorProto`, without TensorFlow, and without trusting what a proto says of itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from savedmodels.wire.arrays import MAX_RANK, InputError
from savedmodels.wire.protos import tensor_pb2, types_pb2
from savedmodels.wire.signatures import DTYPE_NAMES, DTYPES, is_float
from tfdlrm.checks import quoted

_VALUE_FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_HALF": "half_val",
    "DT_BFLOAT16": "half_val",
    "DT_INT8": "int_val",
    "DT_INT16": "int_val",
    "DT_INT32": "int_val",
    "DT_INT64": "int64_val",
    "DT_UINT8": "int_val",
    "DT_UINT16": "int_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
    "DT_BOOL": "bool_val",
    "DT_STRING": "string_val",
}
POINTER_BYTES = 8


def to_proto(array: np.ndarray) -> Any:
    """An array as a `TensorProto`; strings are arrays of dtype object that hold bytes.

    Example:
        >>> to_proto(np.array([1, 2])).int64_val, to_proto(np.array([1, 2])).tensor_shape.dim[0].size
        ([], 2)
    """
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(DTYPE_NAMES[array.dtype]))
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if array.dtype.kind == "O":
        proto.string_val.extend(array.ravel().tolist())
    else:
        little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
        proto.tensor_content = little_endian.tobytes()
    return proto


def from_proto(name: str, proto: Any, max_bytes: int) -> np.ndarray:
    """The array of a `TensorProto`.

    A proto may hold fewer values than its shape: the last one stands for the rest, as in TensorFlow. So a few bytes can
    claim a shape of any size.

    Args:
        name: for messages.
        proto: as it came.
        max_bytes: of the array.

    Raises:
        InputError: dtype without a form in NumPy, sizes below 0, more bytes than `max_bytes`, another number of values
            than the shape has.
    """
    dtype_name = (
        types_pb2.DataType.Name(proto.dtype) if proto.dtype in types_pb2.DataType.values() else str(proto.dtype)
    )
    if dtype_name not in DTYPES:
        raise InputError(f"input {quoted(name)}: dtype {dtype_name} is not supported.")
    dtype = DTYPES[dtype_name]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if len(shape) > MAX_RANK:
        raise InputError(f"input {quoted(name)}: the tensor has {len(shape)} dimensions; {MAX_RANK} are allowed.")
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise InputError(f"input {quoted(name)}: the tensor's shape {list(shape)} is not fully known.")
    num_values = math.prod(shape)
    num_bytes = num_values * (POINTER_BYTES if dtype.kind == "O" else dtype.itemsize)
    # max: sizes beside a 0 are not bounded by the product
    if num_bytes > max_bytes or max(shape, default=0) > max_bytes:
        raise InputError(f"input {quoted(name)}: shape {list(shape)} takes more than the {max_bytes} bytes allowed.")
    if proto.tensor_content:
        if dtype.kind == "O":
            raise InputError(f"input {quoted(name)}: strings are expected in string_val, not in tensor_content.")
        if len(proto.tensor_content) != num_bytes:
            raise InputError(
                f"input {quoted(name)}: tensor_content holds {len(proto.tensor_content)} bytes; "
                f"shape {list(shape)} takes {num_bytes}."
            )
        array = np.frombuffer(proto.tensor_content, dtype.newbyteorder("<")).astype(dtype, copy=False)
        if dtype.kind == "b":
            array = np.frombuffer(proto.tensor_content, np.uint8) != 0  # another byte than 0 and 1 is no valid bool
        return array.reshape(shape)
    return _from_values(name, getattr(proto, _VALUE_FIELDS[dtype_name]), dtype, num_values).reshape(shape)


def _from_values(name: str, values: Any, dtype: np.dtype[Any], num_values: int) -> np.ndarray:
    given = len(values)
    if given > num_values or (given == 0 and num_values > 0):
        raise InputError(f"input {quoted(name)}: {given} values were given for a shape of {num_values}.")
    if dtype.kind == "O":
        array: np.ndarray = np.empty(given, object)
        array[:] = list(values)
    elif is_float(dtype) and dtype.itemsize == 2:
        array = np.array(values, np.int64).astype(np.uint16).view(dtype)  # half_val holds the bits
    else:
        array = np.array(values, np.int64 if dtype.kind == "i" else None) if given else np.empty(0, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.astype(dtype)
    if given < num_values:
        filled = np.empty(num_values, dtype)
        filled[:given] = array
        filled[given:] = array[-1]
        return filled
    return array
