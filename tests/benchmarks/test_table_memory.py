"""The peak of a process against what rows and slots take."""

from __future__ import annotations

import pytest
from table_memory import MemoryResult


def result(saved_bytes: int) -> MemoryResult:
    return MemoryResult(
        rows=100_000_000,
        table_bytes=6_800_000_000,
        imported_bytes=700_000_000,
        created_bytes=7_700_000_000,
        trained_bytes=7_800_000_000,
        saved_bytes=saved_bytes,
        checkpoint_bytes=6_800_000_000,
        create_seconds=60.0,
        save_seconds=40.0,
        versions={},
    )


def test_the_limit_is_a_tenth_more_and_the_framework() -> None:
    assert result(0).limit_bytes == pytest.approx(1.1 * 6.8e9 + 1.5e9)


def test_the_peak_of_the_whole_process_is_judged() -> None:
    assert result(8_900_000_000).target().is_met is True
    assert result(9_000_000_000).target().is_met is False


def test_the_report_has_every_stage() -> None:
    text = result(8_100_000_000).to_markdown()
    assert "| 100,000,000 | 6.80 | 0.70 | 7.70 | 7.80 | 8.10 | 8.98 | 6.80 | 60.0 | 40.0 |" in text
    assert "8.100 GB, met" in text
