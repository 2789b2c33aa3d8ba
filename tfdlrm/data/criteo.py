"""Criteo's text format: tab-separated, no header; label, integers, hex strings, in the schema's order."""

from __future__ import annotations

import os

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.chunks import CHUNK_BYTES, check_readable_file, read_first_line
from tfdlrm.data.lines import TextFormat
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.sources import TextSource
from tfdlrm.schema import FeatureSpec

# The Kaggle data cover a week; the reference cuts them into so many equal parts.
KAGGLE_DAYS = 7


def criteo_source(
    path: str | os.PathLike[str],
    spec: FeatureSpec,
    quarantine: Quarantine,
    *,
    allow_unlabelled: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[TextSource, bool]:
    """Rows of a Criteo file, plain or gzip.

    Args:
        path: the file.
        spec: names the columns, which the file does not; usually `criteo_feature_spec()`.
        quarantine: where bad rows go.
        allow_unlabelled: the file may be without the label column (the test set Criteo published is); whether it
            is, is seen by the number of fields of its first row.
        chunk_bytes: rows are handled in pieces of about this size.

    Returns:
        The source, and whether its rows have labels.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: there is no such file, or it is empty.
    """
    if spec.keys:
        raise ValueError(
            f"Criteo files have no key columns: keys={list(spec.keys)}. Use 'row_id', which is always there."
        )
    weighted = [column.name for column in spec.categorical if column.weights]
    if weighted:
        raise ValueError(f"Criteo files have no weights: column {quoted(weighted[0])}. Remove weights from the schema.")
    file = check_readable_file(path, "a Criteo file (tab-separated text, plain or gzip)")
    columns = spec.column_names
    num_fields = read_first_line(file).count(b"\t") + 1
    labelled = not allow_unlabelled or num_fields != len(columns) - len(spec.labels)
    form = TextFormat(
        separator=b"\t",
        columns=columns if labelled else columns[len(spec.labels) :],
        numeric=frozenset([*spec.labels, *(column.name for column in spec.dense)]),
        criteo=(spec.num_dense, len(spec.categorical)) if labelled and _is_plain(spec) else None,
    )
    return TextSource(file, form, quarantine, chunk_bytes), labelled


def _is_plain(spec: FeatureSpec) -> bool:
    """One label, and hex columns of one id each: what native code parses."""
    return len(spec.labels) == 1 and all(c.encoding == "hex" and c.hotness == 1 for c in spec.categorical)


def kaggle_split(num_rows: int) -> tuple[slice, slice, slice]:
    """Training, validation and test rows of the reference's Kaggle split.

    Seven equal contiguous parts (the first get the remainder); parts 1-6 train; the first half of part 7 tests (it
    gets the odd row), the second validates.

    Example:
        >>> kaggle_split(703)
        (slice(0, 603, None), slice(653, 703, None), slice(603, 653, None))
    """
    days = kaggle_rows_per_day(num_rows)
    start = num_rows - int(days[-1])
    middle = start + (int(days[-1]) + 1) // 2
    return slice(0, start), slice(middle, num_rows), slice(start, middle)


def kaggle_rows_per_day(num_rows: int) -> np.ndarray:
    """int64 [7], rows of each part."""
    whole, rest = divmod(num_rows, KAGGLE_DAYS)
    return np.array([whole + (day < rest) for day in range(KAGGLE_DAYS)])
