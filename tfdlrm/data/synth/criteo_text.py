"""Synthetic rows as Criteo's text, whole blocks at once."""

from __future__ import annotations

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.columns import Columns
from tfdlrm.data.splitmix import key
from tfdlrm.data.synth.rows import EmptyCells
from tfdlrm.native.text import criteo_lines
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

_TAB, _NEWLINE, _ZERO = (ord(letter) for letter in "\t\n0")
_NUMBER_BYTES = 8  # a tab and up to 7 digits
_TOKEN_BYTES = 9  # a tab and 8 hex digits
_LAID_OUT_ROWS = 2**11  # at a time: Criteo's take 0.7 MB, which stays in the second-level cache
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
                f"Criteo's text has one id a cell, and column {quoted(column.name)} has hotness {column.hotness}. "
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
                    f"Criteo's text has 8 hex digits, {_MAX_TOKENS} tokens, and table {quoted(table)} has {size} ids. "
                    "Write csv or parquet."
                )
        self._keys = np.array([_column_key(seed, column) for column in range(len(spec.categorical))], np.uint32)
        self._numbers = _number_texts(largest_count)
        self._hex = _hex_texts()
        self._tokens_at = 1 + spec.num_dense * _NUMBER_BYTES
        self._width = self._tokens_at + len(spec.categorical) * _TOKEN_BYTES + 1
        self._num_dense = spec.num_dense

    def lines(self, rows: Columns, empty: EmptyCells | None = None) -> bytes:
        """The text of n rows, each line with its end.

        Args:
            rows: with dense columns transformed by log1p from whole counts.
            empty: cells to leave empty.
        """
        parts = []
        for start in range(0, rows.num_rows, _LAID_OUT_ROWS):
            part = slice(start, min(start + _LAID_OUT_ROWS, rows.num_rows))
            cells = None if empty is None else (empty.dense[part], empty.categorical[part])
            numbers = self._numbers_of(rows.slice(part.start, part.stop), cells)
            text = criteo_lines(*numbers)
            parts.append(self._lay_out(*numbers) if text is None else text)
        return b"".join(parts)

    def _numbers_of(
        self, rows: Columns, empty: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uint8 [n] labels; int32 [n, num_dense] counts, -1 where empty; uint32 [n, columns] tokens, 0 where empty."""
        counts = np.rint(np.expm1(rows.dense)).astype(np.int32)
        tokens = _tokens(rows.ids, self._keys)
        if empty is not None:
            np.putmask(counts, empty[0], -1)
            np.putmask(tokens, empty[1], 0)
        return rows.labels[:, 0].astype(np.uint8), counts, tokens

    def _lay_out(self, labels: np.ndarray, counts: np.ndarray, tokens: np.ndarray) -> bytes:
        """The same text as `criteo_lines`, in a few passes of NumPy.

        Every row is laid out in a line of one width, with zero bytes where its own text is shorter; then all zero
        bytes are dropped.
        """
        text = np.empty((len(labels), self._width), np.uint8)
        np.add(labels, _ZERO, out=text[:, 0])
        high, low = np.take(self._hex, tokens >> np.uint32(16)), np.take(self._hex, tokens & np.uint32(0xFFFF))
        is_empty = tokens == 0
        high[is_empty] = 0
        low[is_empty] = 0
        if self._num_dense:
            self._fields(text, 1, _NUMBER_BYTES, np.uint64, counts.shape)[:] = np.take(self._numbers, counts)
        for offset, dtype, values in ((0, np.uint8, _TAB), (1, np.uint32, high), (5, np.uint32, low)):
            self._fields(text, self._tokens_at + offset, _TOKEN_BYTES, dtype, tokens.shape)[:] = values
        text[:, -1] = _NEWLINE
        return text[text != 0].tobytes()

    def _fields(
        self, text: np.ndarray, start: int, step: int, dtype: type[np.generic], shape: tuple[int, ...]
    ) -> np.ndarray:
        """The bytes of each row at `start`, `start + step`, ... as numbers of the dtype, [n, fields]."""
        return np.ndarray(shape, dtype, buffer=text.data, offset=start, strides=(self._width, step))


def token(id_: int, column: int, seed: int) -> str:
    """The token of one id; for tests and for looking things up.

    Example:
        >>> token(5, 0, seed=1) == token(5, 0, seed=1) != token(6, 0, seed=1)
        True
    """
    return f"{int(_tokens(np.array([[id_]]), np.array([_column_key(seed, column)], np.uint32))[0, 0]):08x}"


def _column_key(seed: int, column: int) -> int:
    return int(key(seed, column)[0]) >> 32


def _tokens(ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """uint32 [n, columns]: a bijection of each column that sends 2**32 - 1, which is no id, to 0."""
    return _mixed(ids.astype(np.uint32), keys) ^ _mixed(np.array([_MAX_TOKENS], np.uint32), keys)


def _mixed(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    x = values ^ keys
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
