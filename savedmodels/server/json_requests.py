"""Bodies of REST requests and answers, in the forms that TensorFlow Serving documents."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from savedmodels.server.errors import ServingError
from savedmodels.wire.arrays import BASE64_KEY, InputError, to_array
from savedmodels.wire.batches import check_names
from savedmodels.wire.protos import example_pb2, input_pb2
from savedmodels.wire.signatures import BFLOAT16, SignatureSpec
from tfdlrm.checks import quoted, shortened

INSTANCES, INPUTS, PREDICTIONS, OUTPUTS = "instances", "inputs", "predictions", "outputs"
EXAMPLES, CONTEXT, RESULTS = "examples", "context", "results"
SIGNATURE_NAME = "signature_name"
BYTES_SUFFIX = "_bytes"  # of outputs whose strings are given in base64
# What a request's JSON may take once it is parsed: a value between commas up to 60 bytes, a list 64, an object 240.
MAX_JSON_MEMORY = 60_000_000
_BYTES_OF = {b",": 60, b"[": 64, b"{": 240}
# Numbers that may be beyond float64: any other is below 1e200 * 1e99.
_LARGE_NUMBER = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{200}")
INT64 = range(-(2**63), 2**63)


class JsonMemory:
    """How much memory a body takes once it is parsed, by its commas and brackets, piece by piece as it arrives."""

    def __init__(self) -> None:
        self._num_bytes = 0

    def add(self, piece: bytes | bytearray) -> None:
        """Counts on.

        Raises:
            ServingError: INVALID_ARGUMENT: it takes more than `MAX_JSON_MEMORY`.
        """
        self._num_bytes += sum(size * piece.count(sign) for sign, size in _BYTES_OF.items())
        if self._num_bytes > MAX_JSON_MEMORY:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"The body's JSON takes more than {MAX_JSON_MEMORY:,} bytes once it is parsed (60 a value, 64 a list, "
                "240 an object). Send fewer rows at a time, or use gRPC.",
            )


def parse_body(body: bytes | bytearray) -> dict[str, Any]:
    """A request's JSON object.

    Raises:
        ServingError: INVALID_ARGUMENT: not UTF-8, not JSON, no object, a name twice in an object, more than
            `MAX_JSON_MEMORY`.
    """
    JsonMemory().add(body)
    # Python takes 1e400 for infinity; asked at every number it is told from that, and slow
    hooks: dict[str, Any] = {"parse_float": _finite} if _LARGE_NUMBER.search(body) else {}
    try:
        parsed = json.loads(body.decode(), object_pairs_hook=_no_name_twice, **hooks)
    except UnicodeDecodeError as error:
        raise ServingError("INVALID_ARGUMENT", f"The body is not UTF-8: {error}.") from None
    except RecursionError:
        raise ServingError("INVALID_ARGUMENT", "The body's JSON is nested too deeply.") from None
    except ValueError as error:
        raise ServingError("INVALID_ARGUMENT", f"The body is not JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise ServingError("INVALID_ARGUMENT", f"A JSON object is expected; the body is a {type(parsed).__name__}.")
    return parsed


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {shortened(text)} is beyond float64")
    return value


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        # set.add gives None: the first name that is in it already
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {quoted(twice[:100])} is twice in an object")
    return found


def signature_name(body: Mapping[str, Any]) -> str:
    """The signature that a body asks for; empty for the default one.

    Raises:
        ServingError: INVALID_ARGUMENT: it is no string.
    """
    name = body.get(SIGNATURE_NAME, "")
    if not isinstance(name, str):
        raise ServingError(
            "INVALID_ARGUMENT", f"{quoted(SIGNATURE_NAME)} is {type(name).__name__}; a string is expected."
        )
    return name


def check_predict(body: Mapping[str, Any]) -> None:
    """Refuses a body for Predict that has not exactly one of the two forms.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    unknown = set(body) - {INSTANCES, INPUTS, SIGNATURE_NAME}
    if unknown:
        raise ServingError("INVALID_ARGUMENT", f"{quoted(min(unknown)[:100])} is unknown in a body for predict.")
    if (INSTANCES in body) == (INPUTS in body):
        raise ServingError("INVALID_ARGUMENT", f"Give either {quoted(INSTANCES)} (rows) or {quoted(INPUTS)} (columns).")


def check_dtypes(signature: SignatureSpec) -> None:
    """Refuses a signature with tensors that have no form in JSON.

    Raises:
        ServingError: INVALID_ARGUMENT: names the tensor and its dtype.
    """
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs.values():
            if spec.dtype == BFLOAT16:
                raise ServingError(
                    "INVALID_ARGUMENT",
                    f"signature {quoted(signature.name)}: {kind} {quoted(spec.name)} is bfloat16, which has no form in "
                    "JSON. Ask over gRPC, or export it as float32.",
                )


def predict_inputs(signature: SignatureSpec, body: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a body for Predict, in either form.

    Raises:
        InputError: names the input, or the row.
    """
    columns = _columns_of_rows(signature, body[INSTANCES]) if INSTANCES in body else _columns(signature, body[INPUTS])
    check_names(signature, list(columns))
    return {name: to_array(signature.inputs[name], value) for name, value in columns.items()}


def _columns(signature: SignatureSpec, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_base64(value):
        return value
    return {_only_input(signature, f"{quoted(INPUTS)} is no object of named inputs"): value}


def _columns_of_rows(signature: SignatureSpec, rows: Any) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{quoted(INSTANCES)}: a list of at least one row is expected.")
    if not _is_named(rows[0]):
        name = _only_input(signature, f"{quoted(INSTANCES)} holds values and not objects of named inputs")
        for position, row in enumerate(rows):
            if _is_named(row):
                raise InputError(f"{quoted(INSTANCES)}, row {position}: an object where row 0 is a value.")
        return {name: rows}
    names = list(rows[0])
    check_names(signature, names)
    expected = set(names)
    for position, row in enumerate(rows):
        if not _is_named(row):
            raise InputError(f"{quoted(INSTANCES)}, row {position}: a value where row 0 is an object.")
        if row.keys() != expected:
            differing = min(row.keys() ^ expected)[:100]
            is_missing = differing in expected
            raise InputError(
                f"{quoted(INSTANCES)}, row {position}: input {quoted(differing)} is "
                f"{'missing' if is_missing else 'unknown'}. "
                f"Every row has: {', '.join(names)}."
            )
    scalars = [name for name in names if signature.inputs[name].shape == ()]
    if scalars:
        raise InputError(
            f"input {quoted(scalars[0])} is one value for the whole request: use "
            f"{quoted(INPUTS)}, not {quoted(INSTANCES)}."
        )
    return {name: [row[name] for row in rows] for name in names}


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Mapping[str, Any]) -> bool:
    return set(value) == {BASE64_KEY}


def _only_input(signature: SignatureSpec, problem: str) -> str:
    if len(signature.inputs) != 1:
        inputs = ", ".join(signature.inputs) or "none"
        raise InputError(f"{problem}, and signature {quoted(signature.name)} takes: {inputs}.")
    return next(iter(signature.inputs))


def predict_answer(outputs: Mapping[str, np.ndarray], *, in_rows: bool) -> dict[str, Any]:
    """The answer to Predict: names are left out where there is one output only.

    Args:
        outputs: of the model.
        in_rows: answer `predictions`, row by row, instead of `outputs`.

    Raises:
        ServingError: INVALID_ARGUMENT: in rows, and an output has another number of rows.
    """
    if not in_rows:
        columns = {name: _values(name, array) for name, array in outputs.items()}
        return {OUTPUTS: columns if len(columns) > 1 else next(iter(columns.values()))}
    sizes = {name: len(array) if array.ndim else None for name, array in outputs.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise ServingError(
            "INVALID_ARGUMENT", f"The outputs have not one row for each instance ({shapes}): use {quoted(INPUTS)}."
        )
    lists = {name: _values(name, array) for name, array in outputs.items()}
    if len(lists) == 1:
        return {PREDICTIONS: next(iter(lists.values()))}
    return {PREDICTIONS: [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]}


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        return _strings(array.tolist(), as_base64=name.endswith(BYTES_SUFFIX))
    if array.dtype.kind == "f" and array.dtype != np.float64:
        # the shortest digits that give the same float32 back, as TensorFlow Serving writes them
        return array.astype(np.str_).astype(np.float64).tolist()
    return array.tolist()


def _strings(value: Any, *, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_strings(each, as_base64=as_base64) for each in value]
    if not as_base64:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass  # JSON has no form for it
    return {BASE64_KEY: base64.b64encode(value).decode("ascii")}


def example_input(body: Mapping[str, Any]) -> Any:
    """The `Input` of a body for Classify or Regress.

    Raises:
        InputError: names the example and the feature.
    """
    unknown = set(body) - {EXAMPLES, CONTEXT, SIGNATURE_NAME}
    if unknown:
        raise InputError(f"{quoted(min(unknown)[:100])} is unknown in a body for classify and regress.")
    rows = body.get(EXAMPLES)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{quoted(EXAMPLES)}: a list of at least one object is expected.")
    examples = [_example(f"{quoted(EXAMPLES)}, row {position}", row) for position, row in enumerate(rows)]
    request_input = input_pb2.Input()
    if CONTEXT in body:
        request_input.example_list_with_context.context.CopyFrom(_example(f"{quoted(CONTEXT)}", body[CONTEXT]))
        request_input.example_list_with_context.examples.extend(examples)
    else:
        request_input.example_list.examples.extend(examples)
    return request_input


def _example(place: str, features: Any) -> Any:
    if not isinstance(features, dict):
        raise InputError(f"{place}: an object of features is expected.")
    example = example_pb2.Example()
    for name, content in features.items():
        values = content if isinstance(content, list) else [content]
        try:
            feature = example.features.feature[name]
        except (UnicodeEncodeError, ValueError):
            raise InputError(f"{place}: a feature's name is not valid Unicode.") from None
        kinds = {_kind(value) for value in values}
        if len(kinds) > 1 or None in kinds:
            raise InputError(
                f"{place}, feature {quoted(name[:100])}: all integers, all floats or all strings are expected."
            )
        try:
            if kinds == {"int64"}:
                feature.int64_list.value.extend(int(value) for value in values)
            elif kinds == {"float"}:
                feature.float_list.value.extend(values)
            elif kinds == {"bytes"}:
                feature.bytes_list.value.extend(_to_bytes(value) for value in values)
        except ValueError as error:
            raise InputError(f"{place}, feature {quoted(name[:100])}: {error}.") from None
    return example


def _kind(value: Any) -> str | None:
    if isinstance(value, int):  # true and false count, as in TensorFlow Serving
        return "int64" if value in INT64 else None
    if isinstance(value, float):
        return "float"
    if isinstance(value, str) or (isinstance(value, dict) and _is_base64(value) and isinstance(value[BASE64_KEY], str)):
        return "bytes"
    return None


def _to_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value[BASE64_KEY], validate=True)


def classify_answer(result: Any) -> dict[str, Any]:
    """The answer to Classify."""
    return {RESULTS: [[[one.label, _digits(one.score)] for one in row.classes] for row in result.classifications]}


def regress_answer(result: Any) -> dict[str, Any]:
    """The answer to Regress."""
    return {RESULTS: [_digits(row.value) for row in result.regressions]}


def _digits(value: float) -> float:
    return float(str(np.float32(value)))
