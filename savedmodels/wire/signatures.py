"""Signatures as their inputs' and outputs' names, dtypes and shapes, from a proto or from its JSON form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from tfdlrm.checks import quoted, shortened

DEFAULT_SIGNATURE = "serving_default"
RANK_SIGNATURE = "rank"
# no signatures to call: TensorFlow runs the first once, when it loads a model, the second when it trains one
INTERNAL_SIGNATURES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})
ROW_LENGTHS = "_row_lengths"
WEIGHTS = "_weights"

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# TensorFlow's dtypes that have a form in NumPy; all but bfloat16 have one in JSON
DTYPES: Mapping[str, np.dtype[Any]] = {
    "DT_FLOAT": np.dtype("float32"),
    "DT_DOUBLE": np.dtype("float64"),
    "DT_HALF": np.dtype("float16"),
    "DT_BFLOAT16": BFLOAT16,
    "DT_INT8": np.dtype("int8"),
    "DT_INT16": np.dtype("int16"),
    "DT_INT32": np.dtype("int32"),
    "DT_INT64": np.dtype("int64"),
    "DT_UINT8": np.dtype("uint8"),
    "DT_UINT16": np.dtype("uint16"),
    "DT_UINT32": np.dtype("uint32"),
    "DT_UINT64": np.dtype("uint64"),
    "DT_BOOL": np.dtype("bool"),
    "DT_STRING": np.dtype("object"),
}
DTYPE_NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}


def dtype_text(dtype: np.dtype[Any]) -> str:
    """A dtype as messages call it.

    Example:
        >>> dtype_text(np.dtype("object")), dtype_text(np.dtype("int64"))
        ('string', 'int64')
    """
    return "string" if dtype.kind in "OSU" else dtype.name


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it holds floats; bfloat16 is of a kind of its own in NumPy."""
    return dtype.kind == "f" or dtype == BFLOAT16


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor of a signature.

    Args:
        name: its name in the signature.
        dtype: in NumPy; object for strings, which are bytes.
        shape: None for a size that is not known; None altogether for a rank that is not known.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def is_batch_first(self) -> bool:
        """Whether the first dimension can be any number of rows."""
        return bool(self.shape) and self.shape[0] is None  # type: ignore[index]

    @property
    def text(self) -> str:
        """Dtype and shape, for messages: `int64 [?, 3]`."""
        if self.shape is None:
            return f"{dtype_text(self.dtype)} of any shape"
        return f"{dtype_text(self.dtype)} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, kw_only=True)
class SignatureSpec:
    """What can be asked of a model.

    Args:
        name: as requests give it.
        inputs, outputs: by name, in the order of the names.
        method: `tensorflow/serving/predict` or another of TensorFlow Serving's.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str = "tensorflow/serving/predict"

    @cached_property
    def bags(self) -> Mapping[str, str]:
        """Input that holds values of bags, one bag after another -> the input that holds the bags' lengths."""
        pairs = {}
        for name in self.inputs:
            if name + ROW_LENGTHS in self.inputs:
                pairs[name] = name + ROW_LENGTHS
                if name + WEIGHTS in self.inputs:
                    pairs[name + WEIGHTS] = name + ROW_LENGTHS
        return pairs

    @cached_property
    def is_batch_first(self) -> bool:
        """Whether rows of several requests may be put together: one answer a row, whatever other rows there are.

        Never for `rank`, whose rows are one user's candidates.
        """
        return (
            self.name != RANK_SIGNATURE
            and bool(self.inputs)
            and all(spec.is_batch_first for spec in (*self.inputs.values(), *self.outputs.values()))
        )

    @property
    def takes_examples(self) -> bool:
        """Whether the only input is serialized tf.train.Examples: string [B], or of a rank that is not known."""
        specs = list(self.inputs.values())
        return len(specs) == 1 and specs[0].dtype.kind == "O" and (specs[0].shape is None or len(specs[0].shape) == 1)


def read_signatures(
    definitions: Mapping[str, Any], read: Callable[[str, Any], SignatureSpec]
) -> tuple[dict[str, SignatureSpec], dict[str, str]]:
    """A model's signatures, without those that are TensorFlow's own.

    Args:
        definitions: `SignatureDef`s by name, or their JSON forms.
        read: `from_proto` or `from_json`.

    Returns:
        Specs of those that can be asked, and why the others cannot, both by name.
    """
    specs, refusals = {}, {}
    for name, definition in definitions.items():
        if name in INTERNAL_SIGNATURES:
            continue
        try:
            specs[name] = read(name, definition)
        except ValueError as error:
            refusals[name] = str(error)
    return specs, refusals


def from_proto(name: str, signature: Any) -> SignatureSpec:
    """A signature from its `SignatureDef`.

    Raises:
        ValueError: a tensor has a dtype that is not in `DTYPES`, or is no single tensor (ragged, sparse).
    """
    from savedmodels.wire.protos import types_pb2

    def tensors(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
        specs = {}
        for key in sorted(infos):
            info = infos[key]
            if info.WhichOneof("encoding") == "coo_sparse":
                raise _no_form(key, "a SparseTensor")
            if info.WhichOneof("encoding") == "composite_tensor":
                kind = info.composite_tensor.type_spec.type_spec_class_name or "composite tensor"
                raise _no_form(key, f"a {shortened(kind.removesuffix('Spec'))}")
            sizes = None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim]
            specs[key] = _tensor_spec(key, types_pb2.DataType.Name(info.dtype), sizes)
        return specs

    return SignatureSpec(
        name=name,
        inputs=tensors(signature.inputs),
        outputs=tensors(signature.outputs),
        method=signature.method_name,
    )


def from_json(name: str, signature: Mapping[str, Any]) -> SignatureSpec:
    """A signature from the JSON form of its `SignatureDef`, as REST metadata has it.

    Raises:
        ValueError: a tensor has a dtype that is not in `DTYPES`.
    """

    def tensors(infos: Mapping[str, Any]) -> dict[str, TensorSpec]:
        specs = {}
        for key in sorted(infos):
            for encoding in ("coo_sparse", "composite_tensor"):
                if encoding in infos[key]:
                    raise _no_form(key, f"a {encoding}")
            shape = infos[key].get("tensor_shape") or {}
            sizes = None if shape.get("unknown_rank") else [int(dim["size"]) for dim in shape.get("dim", [])]
            specs[key] = _tensor_spec(key, str(infos[key]["dtype"]), sizes)
        return specs

    return SignatureSpec(
        name=name,
        inputs=tensors(signature.get("inputs", {})),
        outputs=tensors(signature.get("outputs", {})),
        method=str(signature.get("method_name", "")),
    )


def _no_form(name: str, what: str) -> ValueError:
    return ValueError(f"tensor {quoted(name)} is {what}, which has no form in a request. Export another signature.")


def _tensor_spec(name: str, dtype: str, sizes: Sequence[int] | None) -> TensorSpec:
    if dtype not in DTYPES:
        raise _no_form(name, dtype)
    shape = None if sizes is None else tuple(None if size < 0 else size for size in sizes)
    return TensorSpec(name=name, dtype=DTYPES[dtype], shape=shape)
