"""CSV files of a pipeline: headers that CsvExampleGen would take wrongly, and the place of a row that it refuses."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.schema import FeatureSpec

CSV_FILES = "*.csv"
TRAIN, EVAL, TEST = "train", "eval", "test"


def find_splits(data: Path) -> dict[str, str]:
    """Split -> pattern of its files: folders of that name, or all files, which CsvExampleGen divides by their hash.

    Raises:
        FileNotFoundError, ValueError: there are none, or only some.
    """
    if data.is_file():
        raise FileNotFoundError(f"{data}: is a file. Give the folder that it is in.")
    found = {name: f"{name}/{CSV_FILES}" for name in (TRAIN, EVAL, TEST) if any(data.glob(f"{name}/{CSV_FILES}"))}
    has_files = any(data.glob(CSV_FILES))
    if not found and not has_files:
        raise FileNotFoundError(f"{data}: no folder with CSV files ({CSV_FILES}). Give one with at least one.")
    if found and has_files:
        raise ValueError(
            f"{data}: CSV files are there and in {', '.join(found)}, too. Leave them in one of both places."
        )
    if found and not {TRAIN, EVAL} <= set(found):
        raise FileNotFoundError(
            f"{data}: CSV files are in {', '.join(found)} alone. Put those to train on in {TRAIN}, those to choose the "
            f"best epoch by in {EVAL}, and, where they are others, those to judge by in {TEST}."
        )
    return found or {"rows": CSV_FILES}


def check_headers(data: Path, splits: Mapping[str, str], needed: FeatureSpec | None) -> None:
    """Refuses files whose headers are not those of CsvExampleGen, which takes the first file's for all of a split.

    Args:
        data: the folder.
        splits: from `find_splits`.
        needed: columns that must be there; None where a curated schema will say so.

    Raises:
        ValueError: names file and column.
    """
    for pattern in splits.values():
        files = sorted(data.glob(pattern))
        headers = {file: _header(file) for file in files}
        first = headers[files[0]]
        for file, header in headers.items():
            if header != first:
                raise ValueError(
                    f"{file}: its columns are {', '.join(header)}, and those of {files[0].name} {', '.join(first)}. "
                    "Give all files of a split the same header, in the same order."
                )
        if needed is not None:
            _check_columns(files[0], first, needed)
        if not any(_has_row(file) for file in files):
            raise ValueError(
                f"{data / pattern}: no row below the header of {files[0].name}. Give at least a few hundred."
            )


def _check_columns(file: Path, header: Iterable[str], needed: FeatureSpec) -> None:
    for name in needed.column_names:
        if name not in header:
            hint = checks.hint(name, header)
            raise ValueError(f"{file}: no column {quoted(name)} of the schema{hint} There are: {', '.join(header)}.")


def _header(file: Path) -> list[str]:
    with file.open("rb") as stream:
        line = stream.readline()
    if line.startswith(codecs.BOM_UTF8):
        raise ValueError(f"{file}: a byte order mark would be part of the first name. Save the file without it.")
    text = _decoded(file, 1, line).rstrip("\r\n")
    if not text.strip():
        raise ValueError(f"{file}: no header line. Write the names of the columns there, or remove the file.")
    if '"' in text:
        raise ValueError(f"{file}: the header has quotes, which CsvExampleGen takes for a part of the name. Rename.")
    names = text.split(",")
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise ValueError(
            f"{file}: column {quoted(double[0])} is there {names.count(double[0])} times. Rename, or remove one."
        )
    return names


def _decoded(file: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}, line {number}: not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error


def _has_row(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.readline()
        return any(line.strip() for line in stream)


def first_bad_row(data: Path, splits: Mapping[str, str]) -> str | None:
    """File and line of a row that is not UTF-8, or has another number of cells than the header; reads all rows."""
    try:
        for pattern in splits.values():
            for file in sorted(data.glob(pattern)):
                _check_rows(file)
    except ValueError as error:
        return str(error)
    return None


def _check_rows(file: Path) -> None:
    count = len(_header(file))
    with file.open("rb") as stream:
        reader = csv.reader(_decoded(file, number, line) for number, line in enumerate(stream, 1))
        try:
            for cells in reader:
                if cells and len(cells) != count:
                    raise ValueError(
                        f"{file}, line {reader.line_num}: {len(cells)} cells, and the header has {count}: "
                        f"{quoted(','.join(cells)[:80])}. Correct the row."
                    )
        except csv.Error as error:
            raise ValueError(f"{file}, line {reader.line_num}: {error}. Correct the row.") from error
