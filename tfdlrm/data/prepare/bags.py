"""MLPerf's multi-hot rows from Criteo's one-hot ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tfdlrm.data.prepare.encode import MultiHot
from tfdlrm.data.synth.multi_hot import multi_hot
from tfdlrm.data.synth.presets import DCNV2_HOTNESS
from tfdlrm.schema import FeatureSpec


def dcnv2_bags(spec: FeatureSpec, seed: int) -> tuple[FeatureSpec, MultiHot]:
    """The schema with DLRM-DCNv2's hotness, and the function that makes the bags.

    Raises:
        ValueError: the schema has not its 26 single ids.
    """
    if len(spec.categorical) != len(DCNV2_HOTNESS) or any(column.hotness != 1 for column in spec.categorical):
        raise ValueError(
            f"multi_hot='mlperf-dcnv2' needs {len(DCNV2_HOTNESS)} columns of one id each; the schema has "
            f"{len(spec.categorical)} columns. Remove it, or prepare Criteo rows."
        )
    columns = tuple(
        replace(column, hotness=hotness) for column, hotness in zip(spec.categorical, DCNV2_HOTNESS, strict=True)
    )
    sizes = [spec.vocabulary_sizes[column.table] for column in spec.categorical]

    def bags(place: int, ids: np.ndarray) -> np.ndarray:
        # rows that are left out may have no id
        return multi_hot(np.maximum(ids, 0), DCNV2_HOTNESS[place], sizes[place], table=place, seed=seed)

    return replace(spec, categorical=columns), bags
