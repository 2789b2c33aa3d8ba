"""Counter-based random numbers in NumPy: a number of a (key, counter) that needs no state and no table."""

from __future__ import annotations

import numpy as np

# splitmix64 (Steele, Lea, Flood 2014): its increment and the finalizer's multipliers and shifts
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MULTIPLIER = np.uint64(0x94D049BB133111EB)

_FRACTION_BITS = 53  # of a float64


def mix(values: np.ndarray) -> np.ndarray:
    """uint64 to uint64, a bijection whose output bits depend on all input bits."""
    return finalized(values + _INCREMENT)  # wraps around, as it should


def finalized(values: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer, uint64 to uint64: a bijection, too."""
    x = values ^ (values >> np.uint64(30))
    x *= _FIRST_MULTIPLIER
    x ^= x >> np.uint64(27)
    x *= _SECOND_MULTIPLIER
    x ^= x >> np.uint64(31)
    return x


def key(*words: int) -> np.ndarray:
    """uint64 [1]: one key of several numbers, each of at least 0."""
    state = np.zeros(1, np.uint64)
    for word in words:
        state = mix(state ^ np.array([word & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return state


def fractions(bits: np.ndarray) -> np.ndarray:
    """float64 in [0, 1) from uint64 random bits."""
    return (bits >> np.uint64(64 - _FRACTION_BITS)) * 2.0**-_FRACTION_BITS


def below(bits: np.ndarray, bound: int) -> np.ndarray:
    """int64 in [0, bound) from uint64 random bits; every value as likely to within 2**-53."""
    scaled = (bits >> np.uint64(64 - _FRACTION_BITS)).astype(np.float64)
    scaled *= bound / 2.0**_FRACTION_BITS
    return scaled.astype(np.int64)
