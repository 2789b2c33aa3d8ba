"""Bytes and values changed at random, for the rounds of `tools/fuzz.py`."""

from __future__ import annotations

import struct

import numpy as np

# around the borders of the integers that sizes, offsets and counts are kept in
BORDERS = (0, 1, -1, 2**7, 2**15, 2**16, 2**31 - 1, -(2**31), 2**32, 2**40, 2**63 - 1, -(2**63))
_TEXTS = (b"\t", b"\n", b"\r\n", b'"', b",", b"\0", b"-", b"nan", b"1e999", b"\xff\xfe", b"99999999999999999999", b" ")


def changed(rng: np.random.Generator, data: bytes) -> bytes:
    """The bytes, changed: as often as not one byte alone, so that what follows is still read.

    Else one to four changes: bits, whole numbers, pieces put in, taken out, doubled, or the end cut.
    """
    out = bytearray(data)
    if out and rng.random() < 0.5:
        out[int(rng.integers(len(out)))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, ord("9"), int(rng.integers(256))]))
        return bytes(out)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(out) + 1))
        length = int(min(rng.integers(1, 64), len(out) - at))
        match int(rng.integers(8)):
            case 0 if at < len(out):
                out[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(out):
                out[at] = int(rng.integers(256))
            case 2:
                number = struct.pack("<q", int(BORDERS[int(rng.integers(len(BORDERS)))]))
                out[at : at + 8] = number[: int(rng.choice([2, 4, 8]))]
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = out[at : at + length] * int(rng.integers(1, 4))
            case 5:
                out[at:at] = _TEXTS[int(rng.integers(len(_TEXTS)))]
            case 6 if rng.random() < 0.3:
                del out[at:]
            case _:
                out[at : at + length] = rng.bytes(length)
    return bytes(out)
