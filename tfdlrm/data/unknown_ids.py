"""UnknownIds: how many ids of some rows the training rows did not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfdlrm.schema import OOV_ID, CategoricalColumn, FeatureSpec

# A share that is higher by so much is another kind of rows, or ids written in another way.
JUMP = 0.01


class UnknownIds:
    """Counts, column by column, ids that have no row of their own.

    Of a vocabulary with an out-of-vocabulary row those are the ids of that row; of integer ids under a policy other
    than `error` and `hash`, those outside of the table. Every other column has none: such ids are refused, or hashed.

    Args:
        spec: the columns.

    Example:
        >>> unknown = UnknownIds(spec)
        >>> for features, _ in dataset.batches(4096):
        ...     unknown.update(features)
        >>> unknown.shares()
        {'user': 0.031, 'item': 0.0}
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._columns = [column for column in spec.categorical if _may_be_unknown(column)]
        self._sizes = spec.vocabulary_sizes
        self._unknown = dict.fromkeys((column.name for column in self._columns), 0)
        self._ids = dict.fromkeys(self._unknown, 0)

    def update(self, features: Mapping[str, Any]) -> None:
        """Counts a batch, as a `Dataset` gives it."""
        for column in self._columns:
            given = features[column.name]
            given = given[0] if isinstance(given, tuple) else given
            ids = (given.flat_values if isinstance(given, tf.RaggedTensor) else given).numpy()
            if column.encoding == "integer":
                unknown = (ids < 0) | (ids >= self._sizes[column.table])
            else:
                unknown = ids == OOV_ID
            self._unknown[column.name] += int(np.count_nonzero(unknown))
            self._ids[column.name] += ids.size

    def shares(self) -> dict[str, float]:
        """Unknown ids / ids of each column that may have such, of 0 ids 0."""
        return {name: count / max(self._ids[name], 1) for name, count in self._unknown.items()}


def jumps(shares: Mapping[str, float], before: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Columns whose share of unknown ids is higher than before by more than `JUMP`: (now, before), the worst first.

    Args:
        shares: of the rows at hand.
        before: of the rows to compare with; 0 for a column that is not there.
    """
    pairs = {name: (share, before.get(name, 0.0)) for name, share in shares.items()}
    risen = {name: pair for name, pair in pairs.items() if pair[0] - pair[1] > JUMP}
    return dict(sorted(risen.items(), key=lambda item: item[1][1] - item[1][0]))


def _may_be_unknown(column: CategoricalColumn) -> bool:
    if column.encoding == "integer":
        return column.id_policy in ("oov", "clip", "modulo")
    return column.encoding in ("vocabulary", "hex") and column.id_policy == "oov"
