"""The reference's random generator, number for number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tfdlrm.data import RandomBatches

SEED = 123  # of the golden files


def _stored(golden: np.lib.npyio.NpzFile, mode: str) -> list[dict[str, np.ndarray]]:
    batches: list[dict[str, np.ndarray]] = []
    while f"{mode}/batch_{len(batches)}/dense" in golden:
        prefix = f"{mode}/batch_{len(batches)}/"
        batches.append({key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)})
    return batches


def _candidates(batch: dict[str, np.ndarray], table: int) -> Sequence[int]:
    """Sizes the table may have: a stored file does not say, but its first bags leave few."""
    largest = int(batch[f"ids_{table}"].max())
    return range(largest + 1, largest + 40 + largest // 4)


def _first_batch_matches(sizes: list[int], stored: dict[str, np.ndarray], ids_per_bag: int, fixed: bool) -> bool:
    batch_size, num_dense = stored["dense"].shape
    generator = RandomBatches(
        vocabulary_sizes=sizes,
        num_dense=num_dense,
        batch_size=batch_size,
        num_batches=1,
        ids_per_bag=ids_per_bag,
        fixed=fixed,
        seed=SEED,
    )
    [batch] = generator
    return np.array_equal(batch.ids[-1], stored[f"ids_{len(sizes) - 1}"])


def _parameters(stored: list[dict[str, np.ndarray]], fixed: bool) -> tuple[list[int], int]:
    """Table sizes and ids a bag that give the first batch, table by table."""
    num_tables = sum(key.startswith("ids_") for key in stored[0])
    for ids_per_bag in range(1, 33):
        sizes: list[int] = []
        for table in range(num_tables):
            fitting = (
                size
                for size in _candidates(stored[0], table)
                if _first_batch_matches([*sizes, size], stored[0], ids_per_bag, fixed)
            )
            size = next(fitting, None)
            if size is None:
                break
            sizes.append(size)
        else:
            return sizes, ids_per_bag
    raise AssertionError("no table sizes give the stored ids")


@pytest.mark.parametrize("mode", ["fixed", "variable"])
def test_the_references_batches(golden_dir: Path, mode: str) -> None:
    files = sorted(golden_dir.glob("random_batches*.npz"))
    assert files, f"no random_batches*.npz in {golden_dir}"
    for file in files:
        stored = _stored(np.load(file), mode)
        documented = ([40, 9, 300], 4 if mode == "fixed" else 6)
        try:
            _compare(stored, *documented, mode == "fixed")
        except AssertionError:
            _compare(stored, *_parameters(stored, mode == "fixed"), mode == "fixed")


def _compare(stored: list[dict[str, np.ndarray]], sizes: list[int], ids_per_bag: int, fixed: bool) -> None:
    batch_size, num_dense = stored[0]["dense"].shape
    generator = RandomBatches(
        vocabulary_sizes=sizes,
        num_dense=num_dense,
        batch_size=batch_size,
        num_batches=len(stored),
        ids_per_bag=ids_per_bag,
        fixed=fixed,
        seed=SEED,
    )
    for batch, expected in zip(generator, stored, strict=True):
        np.testing.assert_array_equal(batch.dense, expected["dense"])
        np.testing.assert_array_equal(batch.labels, expected["label"])
        assert len(batch.ids) == sum(key.startswith("ids_") for key in expected)
        for table, (ids, offsets) in enumerate(zip(batch.ids, batch.offsets, strict=True)):
            np.testing.assert_array_equal(ids, expected[f"ids_{table}"])
            np.testing.assert_array_equal(offsets, expected[f"offsets_{table}"])


def test_gaussian_ids() -> None:
    """The reference's formula, written out with its own generator calls."""
    batches = RandomBatches(
        vocabulary_sizes=(50, 60),
        num_dense=2,
        batch_size=3,
        num_batches=2,
        ids_per_bag=5,
        distribution="gaussian",
        minimum=2,
        maximum=40,
        std=9.0,
        round_labels=False,
        seed=9,
    )
    random = np.random.RandomState(9)
    for batch in batches:
        np.testing.assert_array_equal(batch.dense, random.rand(3, 2).astype(np.float32))
        for ids, offsets in zip(batch.ids, batch.offsets, strict=True):
            bags = [np.unique(np.clip(random.normal(21.0, 9.0, 5), 2, 40)).astype(np.int64) for _ in range(3)]
            np.testing.assert_array_equal(ids, np.concatenate(bags))
            assert offsets.tolist() == [0, len(bags[0]), len(bags[0]) + len(bags[1])]
        np.testing.assert_array_equal(batch.labels, random.rand(3, 1).astype(np.float32))


def test_every_iteration_begins_at_the_seed() -> None:
    batches = RandomBatches(vocabulary_sizes=(9,), num_dense=1, batch_size=4, num_batches=2, ids_per_bag=3)
    first, second = list(batches), list(batches)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.dense, other.dense)
        np.testing.assert_array_equal(one.ids[0], other.ids[0])


def test_impossible_numbers_are_refused() -> None:
    options = {"vocabulary_sizes": (9, 5), "num_dense": 1, "batch_size": 4, "num_batches": 2, "ids_per_bag": 3}
    with pytest.raises(ValueError, match="batch_size=0 is too small"):
        RandomBatches(**{**options, "batch_size": 0})
    with pytest.raises(ValueError, match="distribution='normal' is not known"):
        RandomBatches(**options, distribution="normal")
    with pytest.raises(ValueError, match=r"not within \[0, 5\), the smallest table"):
        RandomBatches(**options, distribution="gaussian", minimum=1, maximum=5)
