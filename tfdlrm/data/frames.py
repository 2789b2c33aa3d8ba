"""Rows of a frame: pandas, polars, pyarrow or a mapping of columns, read as those of a typed file are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfdlrm.checks import shortened
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.raw_rows import FrameBlock, row_as_text, typed_block
from tfdlrm.data.tabular import check_columns
from tfdlrm.schema import FeatureSpec

_BLOCK_ROWS = 2**18


def to_polars(frame: Any) -> pl.DataFrame:
    """A polars frame of a frame of pandas, a table of pyarrow, or columns by name; an index of pandas is left out.

    Raises:
        TypeError: it is none of these.
        ValueError: its columns cannot be read.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    is_columns, is_pandas = isinstance(frame, Mapping), hasattr(frame, "iloc")
    if not is_columns and not is_pandas and not hasattr(frame, "__arrow_c_stream__"):
        raise TypeError(
            f"rows are a {type(frame).__name__}, and a frame of polars or pandas, a table of pyarrow, or a mapping "
            "of columns is expected."
        )
    try:
        if is_pandas:  # by its Arrow stream it would come with its index
            found = pl.from_pandas(frame)
        else:
            found = pl.DataFrame(dict(frame) if is_columns else frame)
    # pyarrow's errors are ValueErrors, too, and polars' of mixed values TypeErrors
    except (pl.exceptions.PolarsError, ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"{FRAME_NAME}: {shortened(str(error))}. Give every column values of one type.") from error
    if not isinstance(found, pl.DataFrame):
        raise TypeError(f"rows are a {type(frame).__name__} of one column, and a frame is expected.")
    return found.rename({name: str(name) for name in found.columns})


class FrameSource:
    """Rows of a frame. A row's line is its number in the frame, from 1.

    Args:
        frame: the rows.
        spec: which columns are read, and how.
        order: rows in the order to read them; None for that of the frame.
    """

    file = FRAME_NAME

    def __init__(self, frame: pl.DataFrame, spec: FeatureSpec, order: np.ndarray | None = None) -> None:
        self.rows_read = 0
        self._frame = frame if order is None else frame[order]
        self._numbers = np.arange(len(frame)) if order is None else order
        self._spec = spec

    def blocks(self) -> Iterator[FrameBlock]:
        """See `RowSource`."""
        for start in range(0, len(self._frame), _BLOCK_ROWS):
            block = self._frame[start : start + _BLOCK_ROWS]
            numbers = self._numbers[start : start + len(block)]
            self.rows_read = start + len(block)
            yield typed_block(block, numbers, missing=self._spec.raw.missing, ignored=self._spec.ignored)

    def raw_rows(self, lines: Sequence[int]) -> dict[int, bytes]:
        """See `RowSource`."""
        places = {int(number) + 1: place for place, number in enumerate(self._numbers)}
        return {line: row_as_text(self._frame, places[line]) for line in lines}


def frame_source(
    frame: Any, spec: FeatureSpec, *, allow_unlabelled: bool = False, seed: int | None = None
) -> tuple[FrameSource, bool]:
    """Rows of a frame, in a random order if there is a seed, and whether they have labels; see `check_columns`."""
    rows = to_polars(frame)
    labelled = check_columns(FRAME_NAME, rows.columns, spec, allow_unlabelled=allow_unlabelled)
    order = None if seed is None else np.random.default_rng(seed).permutation(len(rows))
    return FrameSource(rows, spec, order), labelled
