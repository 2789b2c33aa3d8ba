"""Signatures as docs/decisions/0007-serving.md documents them: names, dtypes and ranks of their tensors."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

from tfdlrm.checks import quoted

DEFAULT = "serving_default"
_ROW_LENGTHS = "_row_lengths"
_WEIGHTS = "_weights"
_ID_DTYPES = ("int64", "string")


class _Tensor(NamedTuple):
    dtype: str
    rank: int


_PREDICTIONS = {"probability": _Tensor("float32", 2), "logit": _Tensor("float32", 2)}
OUTPUTS: Mapping[str, Mapping[str, _Tensor]] = {
    DEFAULT: _PREDICTIONS,
    "predict": _PREDICTIONS,
    "rank": {**_PREDICTIONS, "top_index": _Tensor("int32", 1), "top_probability": _Tensor("float32", 1)},
    "embed": {"embeddings": _Tensor("float32", 3), "dense_vector": _Tensor("float32", 2)},
}
_EXAMPLES = {"examples": _Tensor("string", 1)}


def signature_problems(
    signatures: Mapping[str, Any], expected: Mapping[str, Any] | None = None, numbers: Container[str] = ()
) -> list[str]:
    """What is not as documented, or not as the manifest has it.

    Args:
        signatures: of the SavedModel, as `savedmodels.graph_ops.signatures` gives them.
        expected: the manifest's, or None where it cannot be read.
        numbers: inputs that are raw numbers, and no ids.

    Returns:
        A line for each problem, naming the signature and the tensor.

    Example:
        >>> signature_problems({})
        ["signature 'serving_default' is missing"]
    """
    problems = []
    for name in sorted({DEFAULT, *(expected or {})} - set(signatures)):
        problems.append(f"signature {quoted(name)} is missing")
    for name, signature in signatures.items():
        if name in OUTPUTS:
            problems += _input_problems(name, signature["inputs"], numbers)
            outputs = dict(OUTPUTS[name])
            if "dense" not in signature["inputs"]:
                outputs.pop("dense_vector", None)
            problems += _compare(name, "output", outputs, signature["outputs"])
        if expected is not None:
            problems += _changes(name, signature, expected)
    return problems


def _input_problems(signature: str, inputs: Mapping[str, Any], numbers: Container[str]) -> Iterator[str]:
    if signature == DEFAULT and "examples" in inputs:
        yield from _compare(signature, "input", _EXAMPLES, inputs)
        for name in sorted(set(inputs) - set(_EXAMPLES)):
            yield f"signature {quoted(signature)}: input {quoted(name)} beside 'examples' is not documented"
        return
    fixed = {"dense": _Tensor("float32", 2)} | {name: _Tensor("float32", 1) for name in inputs if name in numbers}
    if signature == "rank":
        fixed["k"] = _Tensor("int32", 0)
    present = {name: tensor for name, tensor in fixed.items() if name != "dense" or name in inputs}
    yield from _compare(signature, "input", present, inputs)
    for name, tensor in inputs.items():
        if name not in fixed:
            yield from _column_problems(signature, name, tensor, inputs)


def _column_problems(signature: str, name: str, tensor: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[str]:
    # a feature may have such a name itself, and then it is of ids
    weights_of = inputs.get(name.removesuffix(_WEIGHTS)) if name.endswith(_WEIGHTS) else None
    is_weights = weights_of is not None and tensor["dtype"] == "float32"
    if not is_weights and tensor["dtype"] not in _ID_DTYPES:
        yield (
            f"signature {quoted(signature)}: input {quoted(name)} is {tensor['dtype']}, and ids are int64 or string: "
            "others do not hold every id"
        )
    if tensor["shape"] is None or len(tensor["shape"]) not in (1, 2):
        yield (
            f"signature {quoted(signature)}: input {quoted(name)} has shape {tensor['shape']}, "
            "and [B], [B, H] or [N] is expected"
        )
    if is_weights and tensor["shape"] != weights_of["shape"]:  # type: ignore[index]
        yield f"signature {quoted(signature)}: input {quoted(name)} has not the shape of its ids"
    if name.endswith(_ROW_LENGTHS) and name.removesuffix(_ROW_LENGTHS) in inputs and tensor["dtype"] == "string":
        yield f"signature {quoted(signature)}: input {quoted(name)} is string, and row lengths are int64"


def _compare(signature: str, kind: str, documented: Mapping[str, _Tensor], given: Mapping[str, Any]) -> Iterator[str]:
    for name, (dtype, rank) in documented.items():
        if name not in given:
            yield f"signature {quoted(signature)}: {kind} {quoted(name)} is missing"
            continue
        tensor = given[name]
        if tensor["dtype"] != dtype:
            yield (
                f"signature {quoted(signature)}: {kind} {quoted(name)} is {tensor['dtype']}, and {dtype} is documented"
            )
        # an unknown rank is none that a client could rely on, but it contradicts nothing
        if tensor["shape"] is not None and len(tensor["shape"]) != rank:
            yield (
                f"signature {quoted(signature)}: {kind} {quoted(name)} has shape "
                f"{tensor['shape']}, and rank {rank} is documented"
            )


def _changes(name: str, signature: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    if name not in expected:
        yield f"signature {quoted(name)} is not in the manifest"
        return
    for kind in ("inputs", "outputs"):
        now, then = signature[kind], expected[name].get(kind, {})
        for tensor in sorted(now.keys() | then.keys()):
            if tensor not in now:
                yield f"signature {quoted(name)}: {kind[:-1]} {quoted(tensor)} of the manifest is missing"
            elif tensor not in then:
                yield f"signature {quoted(name)}: {kind[:-1]} {quoted(tensor)} is not in the manifest"
            else:
                for field in ("dtype", "shape"):
                    if now[tensor][field] != then[tensor].get(field):
                        yield (
                            f"signature {quoted(name)}: {kind[:-1]} {quoted(tensor)} has {field} {now[tensor][field]}, "
                            f"and {then[tensor].get(field)} in the manifest"
                        )
