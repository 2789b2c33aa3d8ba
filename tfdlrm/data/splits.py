"""Splits: the parts of a dataset, and how one file is divided into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.quarantine import BadRow
from tfdlrm.schema import FeatureSpec

if TYPE_CHECKING:
    from tfdlrm.data.dataset import Books, Dataset


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What `open_dataset` returns.

    Args:
        train: the training part.
        validation, test: None where the configuration gives no such part, or it has no row.
        preprocessing: fitted schema and vocabularies; save it beside the model.
        books: rows of all files together: read = used + set aside.
        bad_rows: the first rows set aside.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    preprocessing: Preprocessing
    books: Books
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def spec(self) -> FeatureSpec:
        """The columns, with every number known."""
        return self.preprocessing.spec

    @property
    def parts(self) -> Mapping[str, Dataset]:
        """The parts there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


def time_split(num_rows: int, train_fraction: float, validation_fraction: float) -> tuple[slice, slice, slice]:
    """Contiguous training, validation and test rows, of rows in order of time.

    Example:
        >>> time_split(10, 0.8, 0.1)
        (slice(0, 8, None), slice(8, 9, None), slice(9, 10, None))
    """
    # 0.7 + 0.2 is below 0.9 in binary: without rounding, a row would change sides.
    first = int(round(num_rows * train_fraction, 6))
    second = int(round(num_rows * (train_fraction + validation_fraction), 6))
    return slice(0, first), slice(first, second), slice(second, num_rows)
