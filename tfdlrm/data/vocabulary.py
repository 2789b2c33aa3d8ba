"""Vocabulary: raw values and the ids they have in a table, in order of first appearance."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl

UNSEEN = -1  # where a value has no id


class Vocabulary:
    """Values of one table. With an out-of-vocabulary row that is row 0 and values begin at 1; else at 0.

    Args:
        values: distinct, in order of their ids: integers (Criteo's hex) or strings.
        has_oov: keep row 0 for unseen values.

    Example:
        >>> vocabulary = Vocabulary(pl.Series(["b", "a"]), has_oov=True)  # "b" is 1, "a" is 2, others are 0
        >>> vocabulary.size
        3
    """

    def __init__(self, values: pl.Series, *, has_oov: bool) -> None:
        self.values = values if values.dtype == pl.String else values.cast(pl.Int64)
        self.has_oov = has_oov

    @property
    def size(self) -> int:
        """Rows the table needs."""
        return len(self.values) + self.has_oov

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write one value a line, in order of ids: integers as hex, strings with newline and backslash escaped."""
        Path(file).write_bytes(value_lines(self.values))

    @classmethod
    def load(cls, file: str | os.PathLike[str], *, encoding: str, has_oov: bool) -> Vocabulary:
        """Read what `save` wrote.

        Args:
            file: the vocabulary file.
            encoding: `hex` or `vocabulary`, of the table's columns.
            has_oov: as when it was saved.

        Raises:
            ValueError: a value occurs twice or is not hex; the message names file and line.
        """
        text = Path(file).read_bytes()
        try:
            if encoding == "hex":
                numbers = _parse_hex_lines(file, text)
                values = pl.Series("value", numbers, pl.Int64)
            else:
                values = pl.Series("value", [unescaped(line) for line in text.decode().split("\n")[:-1]], pl.String)
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: is no UTF-8 text ({error}). Restore the file.") from error
        if values.n_unique() != len(values):
            line = int(values.is_duplicated().arg_true()[1]) + 1
            raise ValueError(
                f"{file}, line {line}: the value {quoted(text.decode().splitlines()[line - 1])} occurs twice. Remove "
                "one, and retrain."
            )
        return cls(values, has_oov=has_oov)


_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_SHORT_LINE = 9  # eight digits and a newline


def value_lines(values: pl.Series) -> bytes:
    """Values as lines of a vocabulary file: whole numbers as hex, of text newline and backslash escaped."""
    if values.dtype == pl.String:
        lines = values.str.replace_all("\\", "\\\\", literal=True)
        lines = lines.str.replace_all("\n", "\\n", literal=True).str.replace_all("\r", "\\r", literal=True)
        return "".join(f"{line}\n" for line in lines).encode()
    numbers = values.to_numpy().astype(np.int64)
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= 2**32:
        return "".join(f"{value:08x}\n" for value in numbers.tolist()).encode()
    text = np.full((len(numbers), _SHORT_LINE), ord("\n"), np.uint8)
    for digit in range(8):
        text[:, digit] = _HEX_DIGITS[(numbers >> (28 - 4 * digit)) & 15]
    return text.tobytes()


def _parse_hex_lines(file: str | os.PathLike[str], text: bytes) -> np.ndarray:
    codes = np.frombuffer(text, np.uint8)
    if len(codes) % _SHORT_LINE == 0:
        table = codes.reshape(-1, _SHORT_LINE)
        places = np.full(256, 16, np.uint8)
        places[_HEX_DIGITS] = np.arange(16)
        digits = places[table[:, :8]]
        if (table[:, 8] == ord("\n")).all() and (digits < 16).all():
            numbers = np.zeros(len(table), np.int64)
            for digit in range(8):
                numbers = numbers << 4 | digits[:, digit]
            return numbers
    lines = text.decode().split("\n")[:-1]
    return np.array([_hex(file, number, line) for number, line in enumerate(lines, 1)], np.int64)


def _hex(file: str | os.PathLike[str], number: int, line: str) -> int:
    try:
        value = int(line, 16)
    except ValueError as error:
        raise ValueError(f"{file}, line {number}: {quoted(line)} is not a hex number. Restore the file.") from error
    if not 0 <= value < 2**63:
        raise ValueError(f"{file}, line {number}: {quoted(line)} is not in [0, 2^63). Restore the file.")
    return value


def unescaped(line: str) -> str:
    """The text of a line of a vocabulary file, see `value_lines`."""
    if "\\" not in line:
        return line
    pieces = line.split("\\\\")  # an escaped backslash: what follows it escapes nothing
    return "\\".join(piece.replace("\\n", "\n").replace("\\r", "\r") for piece in pieces)
