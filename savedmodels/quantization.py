"""Rows of fewer bits: what is stored of a row, and how stock TensorFlow ops make float32 of it again.

Row-wise and asymmetric, as the reference's inference code has it (PyTorch's `embedding_bag_byte_prepack` and
`embedding_bag_4bit_prepack`): a row's smallest value and a scale stand behind its codes,

    int8    D codes, scale and minimum float32     scale = (max - min) / 255       D + 8 bytes
    int4    D / 2 bytes of two codes, low first,
            scale and minimum float16              scale = (max - min) / 15        D / 2 + 4 bytes

and x = scale * code + minimum. Narrow rows (D < 32) would spend a third of an int8 row on the pair of float32, so there
they are float16, rounded before the codes are chosen: D + 4 bytes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from savedmodels.names import QUANTIZATIONS
from tfdlrm.checks import quoted

# below this width a pair of float32 takes more than a fifth of an int8 row
NARROW_WIDTH = 32
_EPSILON = np.float32(1e-8)  # the reference's, so that a constant row does not divide by zero


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowFormat:
    """How rows of one width are stored.

    Args:
        kind: "float32", "bfloat16", "float16", "int8", "int8_half" (scale and minimum in float16) or "int4".
        width: D, values a row.

    Example:
        >>> row_format("int8", 64).row_bytes
        72
    """

    kind: str
    width: int

    @property
    def dtype(self) -> tf.DType:
        """Of the stored array."""
        return tf.as_dtype(self.kind) if self.kind in ("float32", "bfloat16", "float16") else tf.uint8

    @property
    def stored_width(self) -> int:
        """Columns of the stored array."""
        return {"int8": self.width + 8, "int8_half": self.width + 4, "int4": -(-self.width // 2) + 4}.get(
            self.kind, self.width
        )

    @property
    def row_bytes(self) -> int:
        return self.stored_width * self.dtype.size

    @property
    def is_rounded(self) -> bool:
        """Whether a float32 row may come back changed."""
        return self.kind != "float32"

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they are stored.

        Args:
            rows: float32 `[N, D]`.

        Returns:
            `[N, stored_width]` of the format's dtype.
        """
        if self.kind == "int8":
            return encode_int8(rows)
        if self.kind == "int8_half":
            return encode_int8(rows, np.float16)
        if self.kind == "int4":
            return encode_int4(rows)
        return rows.astype(self.dtype.as_numpy_dtype)

    def decode(self, stored: tf.Tensor) -> tf.Tensor:
        """float32 `[N, D]` of stored rows `[N, stored_width]`."""
        if self.kind == "float32":
            return stored
        if self.dtype != tf.uint8:
            return tf.cast(stored, tf.float32)
        codes_width = self.width if self.kind != "int4" else -(-self.width // 2)
        codes = stored[:, :codes_width]
        pair_dtype = tf.float32 if self.kind == "int8" else tf.float16
        pair = tf.reshape(stored[:, codes_width:], [-1, 2, pair_dtype.size])
        pair = tf.cast(tf.bitcast(pair, pair_dtype), tf.float32)  # [N, 2]
        if self.kind == "int4":
            low, high = tf.bitwise.bitwise_and(codes, 15), tf.bitwise.right_shift(codes, 4)
            codes = tf.reshape(tf.stack([low, high], axis=2), [-1, 2 * codes_width])[:, : self.width]
        return tf.cast(codes, tf.float32) * pair[:, :1] + pair[:, 1:]

    def error_bound(self, rows: np.ndarray) -> np.ndarray:
        """The largest |decoded - x| that rounding can cause, by row, float32 `[N]`.

        A code is at most half a step from its value; what rounding scale and minimum to float16 or float32 adds is
        bounded by their own rounding errors, the scale's as often as the largest code.
        """
        largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
        if self.kind in ("float32", "bfloat16", "float16"):
            digits = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-11}[self.kind]
            return (largest * digits + (2.0**-25 if self.kind == "float16" else 0.0)).astype(np.float32)
        spread = rows.max(axis=1).astype(np.float64) - rows.min(axis=1)
        levels = 15 if self.kind == "int4" else 255
        step = spread / levels
        # float16 has 11 significant bits, and below 2^-14 a spacing of 2^-24
        half = 2.0**-11 if self.kind != "int8" else 2.0**-24
        tiny = 2.0**-25 if self.kind != "int8" else 0.0
        rounding = levels * (step * half + tiny) + largest * half + tiny
        return (0.5 * step + rounding + largest * 2.0**-22 + float(_EPSILON)).astype(np.float32)


def row_format(quantization: str, width: int, stored_dtype: str = "float32") -> RowFormat:
    """The format of rows of a width.

    Args:
        quantization: one of `QUANTIZATIONS`; "none" keeps the dtype that the rows have.
        width: D.
        stored_dtype: the rows' dtype in training.

    Raises:
        ValueError: an unknown quantization.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantize={quoted(quantization)} is unknown. Use one of: {', '.join(QUANTIZATIONS)}.")
    if quantization == "none":
        return RowFormat(kind=stored_dtype, width=width)
    kind = {"bf16": "bfloat16"}.get(quantization, quantization)
    if kind == "int8" and width < NARROW_WIDTH:
        kind = "int8_half"
    return RowFormat(kind=kind, width=width)


def encode_int8(rows: np.ndarray, pair_dtype: type[np.floating] = np.float32) -> np.ndarray:
    """float32 `[N, D]` -> uint8 `[N, D + 2 * size of pair_dtype]`: codes, scale, minimum.

    With float32 the reference's bytes (`golden/quantized_rows.npz`). With float16, minimum and scale are rounded first
    and codes count from the rounded ones, as in int4.

    Example:
        >>> encode_int8(np.zeros([5, 64], np.float32)).shape
        (5, 72)
    """
    if pair_dtype == np.float16:
        codes, scale, low = _codes_from_halves(rows, 255)
        return np.concatenate([codes, _bytes(scale), _bytes(low)], axis=1)
    low = rows.min(axis=1, keepdims=True)
    spread = rows.max(axis=1, keepdims=True) - low
    codes = np.rint((rows - low) * (np.float32(255.0) / (spread + _EPSILON))).astype(np.uint8)
    scale = spread / np.float32(255.0)
    return np.concatenate([codes, _bytes(scale), _bytes(low)], axis=1)


def encode_int4(rows: np.ndarray) -> np.ndarray:
    """float32 `[N, D]` -> uint8 `[N, ceil(D / 2) + 4]`: two codes a byte, low first, then scale and minimum float16.

    Example:
        >>> encode_int4(np.zeros([5, 64], np.float32)).shape
        (5, 36)
    """
    codes, scale, low = _codes_from_halves(rows, 15)
    if codes.shape[1] % 2:
        codes = np.concatenate([codes, np.zeros((len(codes), 1), np.uint8)], axis=1)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    return np.concatenate([packed, _bytes(scale), _bytes(low)], axis=1)


def _codes_from_halves(rows: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes uint8 `[N, D]`, scale and minimum float16 `[N, 1]`."""
    low = rows.min(axis=1, keepdims=True).astype(np.float16)
    start = low.astype(np.float32)
    scale = ((rows.max(axis=1, keepdims=True) - start) / np.float32(levels)).astype(np.float16)
    scale[scale == 0] = 1
    inverse = np.float32(1.0) / scale.astype(np.float32)
    codes = np.clip(np.rint((rows - start) * inverse), 0, levels).astype(np.uint8)
    return codes, scale, low


def _bytes(values: np.ndarray) -> np.ndarray:
    """`[N, 1]` -> uint8 `[N, size]`, little-endian."""
    return np.ascontiguousarray(values).view(np.uint8)
