"""Rows of JSON lines or CSV as inputs of a signature, and outputs as rows of the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, Any

from savedmodels.client.base import Arrays
from savedmodels.client.errors import InvalidRequestError
from savedmodels.wire.signatures import RANK_SIGNATURE, SignatureSpec
from tfdlrm.checks import quoted

JSONL, CSV = "jsonl", "csv"
Row = dict[str, Any]
Numbered = tuple[int, Row]


class BadLines(ValueError):
    """Lines that are no rows."""


def read_rows(lines: Iterable[str], form: str, source: str) -> Iterator[Numbered]:
    """(line number, row) of each line; blank lines are left out.

    Args:
        lines: of the file, in order.
        form: `jsonl`: an object a line; `csv`: a header, and then cells that are text, numbers or JSON lists.
        source: for messages.

    Raises:
        BadLines: a line is no row; the message names it by number.
    """
    return _json_rows(lines, source) if form == JSONL else _csv_rows(lines, source)


def _json_rows(lines: Iterable[str], source: str) -> Iterator[Numbered]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadLines(f"{source}:{number}: not JSON: {error}.") from None
        if not isinstance(row, dict) or not row:
            raise BadLines(f"{source}:{number}: an object of columns is expected.")
        yield number, row


def _csv_rows(lines: Iterable[str], source: str) -> Iterator[Numbered]:
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise BadLines(f"{source}:{reader.line_num}: a column's name is twice in the header.")
                continue
            if len(cells) != len(header):
                raise BadLines(f"{source}:{reader.line_num}: {len(cells)} cells where the header has {len(header)}.")
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise BadLines(f"{source}:{reader.line_num}: not CSV: {error}.") from None


def chunks(rows: Iterable[Numbered], size: int) -> Iterator[list[Numbered]]:
    """Lists of at most `size` rows."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def is_of_examples(signature: SignatureSpec, row: Row) -> bool:
    """Whether a row holds columns to be serialized as a tf.train.Example, and not the signature's own input."""
    return signature.takes_examples and set(row) != set(signature.inputs)


def rows_to_inputs(signature: SignatureSpec, rows: Sequence[Row], *, from_text: bool = False) -> dict[str, Any]:
    """Rows as a signature's inputs: columns one after another, bags with their lengths.

    Args:
        signature: what is to be asked.
        rows: name -> value; a bag of varying length is a list. Row lengths are counted, and not in the rows.
        from_text: the values are cells of a CSV file.

    Raises:
        InvalidRequestError: a row has other columns than the signature; names row and column.
    """
    if signature.name == RANK_SIGNATURE:
        raise InvalidRequestError(f"signature {quoted(RANK_SIGNATURE)} is asked about one user at a time, not in rows.")
    lengths = set(signature.bags.values())
    expected = [name for name in signature.inputs if name not in lengths]
    for position, row in enumerate(rows):
        if set(row) != set(expected):
            differing = min(set(row) ^ set(expected))
            problem = "missing" if differing in expected else "unknown"
            raise InvalidRequestError(
                f"row {position}: column {quoted(differing)} is {problem}. A row has: {', '.join(expected)}."
            )
    columns = {name: [row[name] for row in rows] for name in expected}
    if from_text:
        columns = {name: _from_cells(signature, name, cells) for name, cells in columns.items()}
    inputs: dict[str, Any] = {}
    for name, values in columns.items():
        if name not in signature.bags:
            inputs[name] = values
            continue
        for position, bag in enumerate(values):
            if not isinstance(bag, list):
                raise InvalidRequestError(f"row {position}: column {quoted(name)}: a list of values is expected.")
        counted = [len(bag) for bag in values]
        length_name = signature.bags[name]
        if inputs.setdefault(length_name, counted) != counted:
            position = next(
                i for i, pair in enumerate(zip(inputs[length_name], counted, strict=True)) if len({*pair}) > 1
            )
            raise InvalidRequestError(f"row {position}: column {quoted(name)} has not one value for each id.")
        inputs[name] = [value for bag in values for value in bag]
    return inputs


def _from_cells(signature: SignatureSpec, name: str, cells: Sequence[str]) -> list[Any]:
    spec = signature.inputs[name]
    is_list = name in signature.bags or (spec.shape is not None and len(spec.shape) > 1)
    values: list[Any] = []
    for position, cell in enumerate(cells):
        if not is_list and spec.dtype.kind == "O":
            values.append(cell)
        elif not is_list and cell == "" and spec.dtype.kind == "f":
            values.append(float("nan"))  # missing
        else:
            try:
                values.append(json.loads(cell) if cell else [] if is_list else None)
            except ValueError:
                values.append(cell)
            if values[-1] is None or isinstance(values[-1], list) != is_list:
                wanted = "a JSON list" if is_list else spec.text
                raise InvalidRequestError(
                    f"row {position}: column {quoted(name)}: {quoted(cell)}; {wanted} is expected."
                )
    return values


def typed_columns(rows: Sequence[Row]) -> list[Row]:
    """CSV rows of raw columns: a column is of integers if all its cells are, else of floats, else of text.

    An empty cell is a missing value.
    """
    converted: dict[str, list[Any]] = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        for convert in (int, float, str):
            try:
                converted[name] = [None if cell == "" else convert(cell) for cell in cells]
            except ValueError:
                continue
            break
    return [dict(zip(converted, values, strict=True)) for values in zip(*converted.values(), strict=True)]


class RowWriter:
    """Writes outputs, a row a line.

    Args:
        stream: text.
        form: `jsonl` or `csv`; in CSV, `x` `[B, 1]` is the column `x`, and `x` `[B, 3]` the columns `x_0` to `x_2`.
    """

    def __init__(self, stream: IO[str], form: str) -> None:
        self._stream = stream
        self._csv = csv.writer(stream, lineterminator="\n") if form == CSV else None
        self._has_header = False

    def write(self, outputs: Arrays, num_rows: int) -> None:
        """Writes the rows of an answer.

        Raises:
            InvalidRequestError: an output has not one row for each row asked about.
        """
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != num_rows:
                raise InvalidRequestError(
                    f"output {quoted(name)} has the shape {list(array.shape)}, not one row for "
                    f"each of {num_rows} rows. "
                    "Ask for another signature."
                )
        if self._csv is None:
            lists = {name: _plain(array.tolist()) for name, array in outputs.items()}
            for values in zip(*lists.values(), strict=True):
                self._stream.write(json.dumps(dict(zip(lists, values, strict=True))) + "\n")
        else:
            flat = {name: array.reshape(num_rows, -1) for name, array in outputs.items()}
            if not self._has_header:
                self._csv.writerow(
                    label
                    for name, array in flat.items()
                    for label in ([name] if array.shape[1] == 1 else [f"{name}_{i}" for i in range(array.shape[1])])
                )
                self._has_header = True
            for row in range(num_rows):
                self._csv.writerow(value for array in flat.values() for value in _plain(array[row].tolist()))
        self._stream.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def blame(error: Exception, rows: Sequence[Numbered], is_good: Callable[[Sequence[Numbered]], bool]) -> int | None:
    """The number of the first line that is refused by itself, found by halves; None where none is.

    Args:
        error: why all together were refused.
        rows: all of them.
        is_good: asks about some of them.
    """
    if not isinstance(error, InvalidRequestError):
        return None
    low, high = 0, len(rows)
    while high - low > 1:
        middle = (low + high) // 2
        if is_good(rows[low:middle]):
            low = middle
        else:
            high = middle
    return None if is_good(rows[low:high]) else rows[low][0]
