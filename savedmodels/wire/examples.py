"""Columns of a row as a serialized tf.train.Example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from savedmodels.wire.arrays import InputError
from savedmodels.wire.protos import example_pb2
from tfdlrm.checks import quoted

INT64 = range(-(2**63), 2**63)


def serialize_example(columns: Mapping[str, Any]) -> bytes:
    """A row as a serialized tf.train.Example.

    Args:
        columns: name -> value, or list of values: all integers (int64), all floats (float32), all strings or bytes.
            None and `[]` are a missing value.

    Raises:
        InputError: names the column.

    Example:
        >>> serialize_example({"user": 3, "price": 1.5, "tags": ["new", "red"]})  # doctest: +SKIP
    """
    example = example_pb2.Example()
    for name, content in columns.items():
        if content is None:
            continue
        values = np.asarray(content).ravel().tolist() if isinstance(content, (np.ndarray, np.generic)) else content
        values = list(values) if isinstance(values, (list, tuple)) else [values]
        if not values:
            continue
        feature = example.features.feature[name]
        kinds = {type(value) for value in values}
        if kinds <= {int, bool} and all(value in INT64 for value in values):
            feature.int64_list.value.extend(int(value) for value in values)
        elif kinds <= {int, float} and float in kinds:
            feature.float_list.value.extend(float(value) for value in values)
        elif kinds <= {str, bytes}:
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in values)
        else:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InputError(
                f"column {quoted(name)} holds {names}; all integers of 64 bits, all floats or all strings are expected."
            )
    return example.SerializeToString()
