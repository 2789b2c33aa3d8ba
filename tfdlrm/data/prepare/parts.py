"""Which part every staged row belongs to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.criteo import kaggle_split
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.stage import StagedRows
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.splitmix import finalized, fractions
from tfdlrm.data.splits import time_split
from tfdlrm.data.times import seconds_of_text

TRAIN = 0
SAMPLED_OUT = 3  # a negative row that keep_negatives drops
BAD = 4  # found bad once vocabularies were known

_RANDOM_STREAM, _SAMPLING_STREAM = 0, 1


def part_codes(config: PrepareConfig, staged: StagedRows, label: str) -> list[np.ndarray]:
    """uint8 [rows] for each block: index into `PARTS`, or `SAMPLED_OUT`.

    Raises:
        ValueError: the split does not fit the files, or a part cannot be told.
    """
    codes = list(_codes(config, staged))
    if config.keep_negatives < 1.0:
        starts = _starts(staged)
        for block, own in enumerate(codes):
            negative = staged.column(block, f"label/{label}").to_numpy() == 0
            dropped = unit_numbers(np.arange(len(own)) + starts[block], config.seed, _SAMPLING_STREAM)
            own[(own == TRAIN) & negative & (dropped >= config.keep_negatives)] = SAMPLED_OUT
    return codes


def uses_all_rows(config: PrepareConfig, has_oov: bool) -> bool:
    """Whether vocabularies come from all rows: so it is in the reference's two splits, which know no unseen value."""
    return config.split in ("criteo-kaggle", "criteo-terabyte") and not has_oov


def _starts(staged: StagedRows) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(staged.rows)])


def _codes(config: PrepareConfig, staged: StagedRows) -> Iterator[np.ndarray]:
    if config.split == "none":
        return (np.zeros(rows, np.uint8) for rows in staged.rows)
    if config.split == "criteo-kaggle":
        return _contiguous(staged, kaggle_split(int(staged.rows.sum())))
    if config.split == "criteo-terabyte":
        return _contiguous(staged, _terabyte_split(staged))
    if config.split == "time":
        total = int(staged.rows.sum())
        return _contiguous(staged, time_split(total, config.train_fraction, config.validation_fraction))
    bounds = np.array([config.train_fraction, config.train_fraction + config.validation_fraction])
    bounds[bounds > 1.0 - 1e-9] = np.inf
    if config.split == "random":
        starts = _starts(staged)
        return (
            np.searchsorted(
                bounds, unit_numbers(starts[block] + np.arange(rows), config.seed, _RANDOM_STREAM), side="right"
            ).astype(np.uint8)
            for block, rows in enumerate(staged.rows)
        )
    column = config.split_column or ""
    if config.split == "hash":
        return (
            np.searchsorted(bounds, _hashed(staged.key(block, column), config.seed), side="right").astype(np.uint8)
            for block in range(len(staged.rows))
        )
    return _by_time(config, staged, column)


def _contiguous(staged: StagedRows, bounds: tuple[slice, slice, slice]) -> Iterator[np.ndarray]:
    start = 0
    for rows in staged.rows.tolist():
        codes = np.zeros(rows, np.uint8)
        for code, part in enumerate(bounds):
            codes[max(part.start - start, 0) : max(part.stop - start, 0)] = code
        start += rows
        yield codes


def _terabyte_split(staged: StagedRows) -> tuple[slice, slice, slice]:
    """The last file is a day of its own: its first half tests (and gets the odd row), its second half validates."""
    if len(staged.files) < 2:
        raise ValueError(
            f"split='criteo-terabyte' tests on the last file, and there is {len(staged.files)}. Give a file a day."
        )
    total = int(staged.rows.sum())
    last = sum(staged.files[-1].rows)
    start = total - last
    middle = start + (last + 1) // 2
    return slice(0, start), slice(middle, total), slice(start, middle)


def _by_time(config: PrepareConfig, staged: StagedRows, column: str) -> Iterator[np.ndarray]:
    """Thresholds of the time column, so that rows of one moment stay in one part."""
    values = [_times(staged.key(block, column), column) for block in range(len(staged.rows))]
    ordered = np.sort(np.concatenate(values)) if values else np.zeros(0)
    bounds = time_split(len(ordered), config.train_fraction, config.validation_fraction)
    edges = [ordered[part.stop - 1] if part.stop > 0 else -np.inf for part in bounds[:2]]
    return (np.searchsorted(np.array(edges), own, side="left").astype(np.uint8) for own in values)


def _times(array: pa.Array, name: str) -> np.ndarray:
    times = pl.Series(array)
    numbers = times.cast(pl.Float64, strict=False)
    if numbers.null_count() and times.dtype == pl.String:
        texts = seconds_of_text(times)
        numbers = texts if texts.null_count() < numbers.null_count() else numbers
    if numbers.null_count():
        row = int(numbers.is_null().arg_true()[0])
        raise ValueError(
            f"split_column={quoted(name)}: {quoted(times[row])} is no time, in {numbers.null_count():,} rows. "
            "Give all as numbers (seconds, YYYYMMDDHH), or all as 2024-01-31 or "
            "2024-01-31 23:59:59; or split otherwise."
        )
    return numbers.to_numpy()


def _hashed(array: pa.Array, seed: int) -> np.ndarray:
    """float64 in [0, 1) by value, the same in every process and version."""
    if not pa.types.is_integer(array.type):
        from tfdlrm.data.prepare.token_ids import hashed_texts

        return unit_numbers(hashed_texts(pl.Series(array.cast(pa.large_string())), 2**63 - 1), seed, _RANDOM_STREAM)
    return unit_numbers(array.to_numpy(), seed, _RANDOM_STREAM)


def unit_numbers(values: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """float64 in [0, 1) that depend on (value, seed, stream) alone."""
    offset = (seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) % 2**64
    return fractions(finalized(values.astype(np.uint64) + np.uint64(offset)))
