"""Files of ids: NumPy's, the reference's binary one, and text."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from tfdlrm.array_files import read_array
from tfdlrm.data.atomic_files import atomic_path
from tfdlrm.data.trace.stack_distance import check_ids

BINARY_SUFFIX = ".bin"


def load_ids(path: str | os.PathLike[str]) -> np.ndarray:
    """int64 [n]: the ids of a file.

    Args:
        path: `.npy`; `.bin`, 8 bytes an id, as the reference's binary traces have them; anything else is text, with
            commas, blanks or new lines between ids.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, or nothing.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file (a trace is expected). Give .npy, .bin or text.")
    try:
        if file.suffix == ".npy":
            ids = read_array(file)
        elif file.suffix == BINARY_SUFFIX:
            ids = np.fromfile(file, np.uint64)
        else:
            ids = parse_numbers(file.read_text(encoding="utf-8"), np.int64)
        ids = check_ids(ids)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not len(ids):
        raise ValueError(f"{file}: the trace is empty. Give one with at least one id.")
    return ids


def save_ids(path: str | os.PathLike[str], ids: np.ndarray) -> None:
    """Writes ids, in the form the suffix says (see `load_ids`); text is one line with commas, as the reference's."""
    file, ids = Path(path), check_ids(ids)
    with atomic_path(file) as partial, partial.open("wb") as stream:
        if file.suffix == ".npy":
            np.save(stream, ids)
        elif file.suffix == BINARY_SUFFIX:
            stream.write(ids.astype(np.uint64).tobytes())
        else:
            stream.write(format_numbers(ids).encode())


def parse_numbers(text: str, dtype: type[np.generic]) -> np.ndarray:
    """Numbers with commas or white space between them.

    Raises:
        ValueError: there is something else.
    """
    text = text.replace(",", " ").strip()
    if not text:
        return np.empty(0, dtype)
    with warnings.catch_warnings():
        # NumPy says by a warning that it stopped early
        warnings.simplefilter("error")
        try:
            return np.fromstring(text, dtype, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise ValueError(
                "there is something that is no number. Give numbers with commas or white space between them."
            ) from error


def format_numbers(numbers: np.ndarray) -> str:
    """`1, 2, 3`: with as many digits as it takes to read the same numbers back."""
    return ", ".join(map(repr, numbers.tolist()))
