"""Named sizes of synthetic data, from rows for a unit test to those of MLPerf's DLRM-DCNv2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfdlrm.checks import check_choice
from tfdlrm.config.data import SyntheticConfig

# Rows of Criteo's tables: the Kaggle data; the Terabyte data, ids modulo 40 million, as MLPerf's DLRM-DCNv2 has them.
KAGGLE_SIZES = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
DCNV2_SIZES = (
    *(40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10),
    *(2209, 11938, 155, 4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36),
)
DCNV2_HOTNESS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)

KAGGLE_ROWS = 45_840_617
TERABYTE_ROWS = 4_373_472_329  # of its 24 days


def _at_most(largest: int) -> tuple[int, ...]:
    """MLPerf's tables, none with more rows than this: large tables meet small ones at every size."""
    return tuple(min(size, largest) for size in DCNV2_SIZES)


@dataclass(frozen=True, kw_only=True)
class SyntheticPreset:
    """A named size.

    Args:
        name: what it is called.
        description: one line.
        num_rows: rows; any part of them can be made by itself.
        vocabulary_sizes: V of each table.
        hotness: ids a bag, one number for all columns or one each.
        power_law_exponent: see `SyntheticConfig`.
    """

    name: str
    description: str
    num_rows: int
    vocabulary_sizes: tuple[int, ...]
    hotness: int | tuple[int, ...] = 1
    power_law_exponent: float = 1.05

    def config(self, **changes: Any) -> SyntheticConfig:
        """The configuration, with some of its fields changed.

        Raises:
            ValueError: `SyntheticConfig` refuses a value.

        Example:
            >>> synthetic_preset("colossal").config(num_rows=1000).num_rows
            1000
        """
        fields: dict[str, Any] = {
            "num_rows": self.num_rows,
            "vocabulary_sizes": self.vocabulary_sizes,
            "hotness": self.hotness,
            "power_law_exponent": self.power_law_exponent,
        }
        return SyntheticConfig(**{**fields, **changes})


_SIZES: tuple[tuple[str, str, int, tuple[int, ...]], ...] = (
    ("tiny", "seconds on any machine", 10_000, _at_most(100)),
    ("small", "a first model that learns", 1_000_000, _at_most(10_000)),
    ("medium", "tables beyond the processor's caches", 10_000_000, _at_most(1_000_000)),
    ("large", "tables of gigabytes", 100_000_000, _at_most(10_000_000)),
    ("huge", "MLPerf's tables", 1_000_000_000, DCNV2_SIZES),
    ("colossal", "MLPerf's tables and the rows of Criteo Terabyte", TERABYTE_ROWS, DCNV2_SIZES),
    ("criteo-kaggle", "rows and tables of Criteo Kaggle", KAGGLE_ROWS, KAGGLE_SIZES),
)
PRESETS = (
    *(
        SyntheticPreset(name=name, description=description, num_rows=num_rows, vocabulary_sizes=sizes)
        for name, description, num_rows, sizes in _SIZES
    ),
    SyntheticPreset(
        name="mlperf-dcnv2",
        description="MLPerf's DLRM-DCNv2: tables, rows and bags of up to 100 ids",
        num_rows=TERABYTE_ROWS,
        vocabulary_sizes=DCNV2_SIZES,
        hotness=DCNV2_HOTNESS,
    ),
)


def synthetic_preset_names() -> tuple[str, ...]:
    """The names, smallest first."""
    return tuple(preset.name for preset in PRESETS)


def synthetic_preset(name: str) -> SyntheticPreset:
    """The preset of a name.

    Raises:
        ValueError: there is none; the nearest name is suggested.
    """
    check_choice("synthetic data", "preset", name, synthetic_preset_names())
    return next(preset for preset in PRESETS if preset.name == name)
