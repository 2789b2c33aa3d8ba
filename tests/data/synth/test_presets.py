"""Named sizes: the published numbers, and any part of the largest in no time."""

from __future__ import annotations

import numpy as np
import pytest

from tfdlrm.config import SyntheticConfig, preset
from tfdlrm.data.synth.presets import PRESETS, synthetic_preset, synthetic_preset_names
from tfdlrm.data.synth.rows import SyntheticRows


def test_the_names() -> None:
    names = synthetic_preset_names()
    assert names[:6] == ("tiny", "small", "medium", "large", "huge", "colossal")
    assert names[6:] == ("criteo-kaggle", "mlperf-dcnv2")
    with pytest.raises(ValueError, match=r"preset='smal' is not known, did you mean 'small'\?"):
        synthetic_preset("smal")


def test_sizes_grow() -> None:
    ladder = [synthetic_preset(name).config() for name in synthetic_preset_names()[:6]]
    assert [config.num_rows for config in ladder] == sorted({config.num_rows for config in ladder})
    assert [sum(config.vocabulary_sizes) for config in ladder] == sorted(sum(c.vocabulary_sizes) for c in ladder)
    assert all(len(config.vocabulary_sizes) == 26 and config.num_dense == 13 for config in ladder)


def test_the_real_tables() -> None:
    kaggle = synthetic_preset("criteo-kaggle").config()
    assert sum(kaggle.vocabulary_sizes) == 33_762_577
    assert kaggle.num_rows == 45_840_617
    assert set(kaggle.hotness_per_feature) == {1}
    dcnv2 = synthetic_preset("mlperf-dcnv2").config()
    assert sum(dcnv2.vocabulary_sizes) == 204_184_588
    assert sum(dcnv2.hotness_per_feature) == 214
    tables = preset("mlperf-dcnv2").model
    assert dcnv2.vocabulary_sizes == tuple(table.vocabulary_size for table in tables.tables)


@pytest.mark.parametrize("name", [preset.name for preset in PRESETS])
def test_a_part_of_each(name: str) -> None:
    """And the last rows of it."""
    config = synthetic_preset(name).config(seed=5)
    assert isinstance(config, SyntheticConfig)
    for start in (0, config.num_rows - 100):
        rows = SyntheticRows(config, start, start + 100).read_block(0)
        assert rows.num_rows == 100
        assert rows.keys["row_id"][0] == start
        sizes = np.repeat(config.vocabulary_sizes, config.hotness_per_feature)
        assert (rows.ids < sizes).all()


def test_rows_can_be_fewer() -> None:
    assert synthetic_preset("colossal").config(num_rows=1000, days=4).days == 4
