"""Synthetic rows as Criteo's text, whole blocks at once.

Every row is laid out in a line of one width, with zero bytes where its own text is shorter; then all zero bytes are
dropped. That takes a few passes of NumPy over a block and no work for a row.
"""

from __future__ import annotations

import numpy as np

from tfdlrm.data.columns import Columns
from tfdlrm.data.synth.hashing import key
from tfdlrm.data.synth.rows import EmptyCells
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

_TAB, _NEWLINE, _ZERO = (ord(letter) for letter in "\t\n0")
_HEX_DIGITS = 8
_NUMBER_BYTES = 8  # a tab and up to 7 digits
_MAX_TOKENS = 2**32 - 1  # 0 is what an empty cell reads as, and no token

# multipliers and shifts of a bijection of 32-bit integers (Wellons, "Prospecting for Hash Functions", 2018)
_FIRST_MULTIPLIER = np.uint32(0x7FEB352D)
_SECOND_MULTIPLIER = np.uint32(0x846CA68B)


def criteo_text_spec(spec: FeatureSpec) -> FeatureSpec:
    """The schema of the text of these rows: hex cells, no keys, unseen tokens out of vocabulary.

    Raises:
        ValueError: Criteo's cells hold one id, and a column has bags.
    """
    for column in spec.categorical:
        if column.hotness != 1:
            raise ValueError(
                f"Criteo's text has one id a cell, and column {column.name!r} has hotness {column.hotness}. "
                "Write csv or parquet, or set hotness 1."
            )
    return FeatureSpec(
        labels=spec.labels,
        dense=tuple(DenseColumn(name=column.name, transform="log1p") for column in spec.dense),
        categorical=tuple(
            CategoricalColumn(name=column.name, encoding="hex", id_policy="oov") for column in spec.categorical
        ),
    )


class CriteoText:
    """Writes blocks of rows as text.

    A token is the id's image under a bijection of 32-bit integers that depends on (seed, column), in 8 hex digits: the
    order of tokens says nothing about the ids. None is `00000000`, which an empty cell would read as.

    Args:
        spec: of the rows; see `criteo_text_spec`.
        seed: of the tokens.
        largest_count: no raw integer is larger.

    Raises:
        ValueError: a column has bags, or a table has more ids than there are tokens.
    """

    def __init__(self, spec: FeatureSpec, seed: int, largest_count: int) -> None:
        criteo_text_spec(spec)
        for table, size in spec.vocabulary_sizes.items():
            if size > _MAX_TOKENS:
                raise ValueError(
                    f"Criteo's text has 8 hex digits, {_MAX_TOKENS} tokens, and table {table!r} has {size} ids. "
                    "Write csv or parquet."
                )
        self._keys = [np.uint32(key(seed, column)[0] >> np.uint64(32)) for column in range(len(spec.categorical))]
        self._numbers = _number_texts(largest_count)
        self._number_width = len(str(largest_count)) + 1
        self._num_dense = spec.num_dense
        # numbers are written 8 bytes at a time, the next ones over the zero bytes behind the last
        self._tokens_at = 1 + spec.num_dense * self._number_width
        self._width = self._tokens_at + (_HEX_DIGITS + 1) * len(spec.categorical) + 1
        self._hex = _hex_texts()

    def lines(self, rows: Columns, empty: EmptyCells | None = None) -> bytes:
        """The text of n rows, each line with its end.

        Args:
            rows: with dense columns transformed by log1p from whole counts.
            empty: cells to leave empty.
        """
        num_rows = rows.num_rows
        text = np.zeros((num_rows, self._width), np.uint8)
        np.add(rows.labels[:, 0].astype(np.uint8), _ZERO, out=text[:, 0])
        for column in range(self._num_dense):
            counts = np.rint(np.expm1(rows.dense[:, column])).astype(np.int32)
            if empty is not None:
                counts[empty.dense[:, column]] = len(self._numbers) - 1
            self._field(text, 1 + column * self._number_width, np.uint64)[:] = np.take(self._numbers, counts)
        for column, column_key in enumerate(self._keys):
            tokens = _tokens(rows.ids[:, column], column_key)
            start = self._tokens_at + column * (_HEX_DIGITS + 1)
            high, low = np.take(self._hex, tokens >> np.uint32(16)), np.take(self._hex, tokens & np.uint32(0xFFFF))
            if empty is not None:
                high[empty.categorical[:, column]] = 0
                low[empty.categorical[:, column]] = 0
            self._field(text, start, np.uint8)[:] = _TAB
            self._field(text, start + 1, np.uint32)[:] = high
            self._field(text, start + 5, np.uint32)[:] = low
        text[:, -1] = _NEWLINE
        return text[text != 0].tobytes()

    def _field(self, text: np.ndarray, start: int, dtype: type[np.generic]) -> np.ndarray:
        """The bytes of every row from `start` on, as one number of the dtype."""
        return np.ndarray((len(text),), dtype, buffer=text.data, offset=start, strides=(self._width,))


def token(id_: int, column: int, seed: int) -> str:
    """The token of one id; for tests and for looking things up.

    Example:
        >>> token(5, 0, seed=1) == token(5, 0, seed=1) != token(6, 0, seed=1)
        True
    """
    column_key = np.uint32(key(seed, column)[0] >> np.uint64(32))
    return f"{int(_tokens(np.array([id_]), column_key)[0]):08x}"


def _tokens(ids: np.ndarray, column_key: np.uint32) -> np.ndarray:
    """uint32: a bijection that sends 2**32 - 1, which is no id, to 0."""
    last = _mixed(np.array([_MAX_TOKENS], np.uint32), column_key)
    return _mixed(ids.astype(np.uint32), column_key) ^ last


def _mixed(values: np.ndarray, column_key: np.uint32) -> np.ndarray:
    x = values ^ column_key
    x ^= x >> np.uint32(16)
    x *= _FIRST_MULTIPLIER
    x ^= x >> np.uint32(15)
    x *= _SECOND_MULTIPLIER
    x ^= x >> np.uint32(16)
    return x


def _number_texts(largest: int) -> np.ndarray:
    """uint64 [largest + 2]: a tab and the digits of each number, zero bytes behind; the last is a tab alone."""
    texts = [f"\t{number}" for number in range(largest + 1)] + ["\t"]
    return np.array(texts, f"S{_NUMBER_BYTES}").view(np.uint64)


def _hex_texts() -> np.ndarray:
    """uint32 [65536]: the four hex digits of each 16-bit number."""
    return np.array([f"{number:04x}" for number in range(2**16)], "S4").view(np.uint32)
