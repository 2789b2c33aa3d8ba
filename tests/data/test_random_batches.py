"""The reference's random generator, number for number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.golden_files import golden_files
from tfdlrm.data import RandomBatches

SEED = 123  # of the golden files

Batches = list[dict[str, np.ndarray]]


def _stored(golden: np.lib.npyio.NpzFile, mode: str) -> Batches:
    batches: Batches = []
    while f"{mode}/batch_{len(batches)}/dense" in golden:
        prefix = f"{mode}/batch_{len(batches)}/"
        batches.append({key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)})
    return batches


def _generator(stored: Batches, sizes: Sequence[int], ids_per_bag: int, fixed: bool) -> RandomBatches:
    batch_size, num_dense = stored[0]["dense"].shape
    return RandomBatches(
        vocabulary_sizes=sizes,
        num_dense=num_dense,
        batch_size=batch_size,
        num_batches=len(stored),
        ids_per_bag=ids_per_bag,
        fixed=fixed,
        seed=SEED,
    )


def _num_tables(stored: Batches) -> int:
    return sum(key.startswith("ids_") for key in stored[0])


def _equal(stored: Batches, generator: RandomBatches, tables: Sequence[int]) -> bool:
    return all(
        np.array_equal(batch.ids[table], expected[f"ids_{table}"])
        for batch, expected in zip(generator, stored, strict=True)
        for table in tables
    )


def _sizes(stored: Batches) -> list[int]:
    """Table sizes of a stored file, which does not name them.

    A fixed number of draws does not depend on the sizes, so that each can be found by itself.
    """
    num_tables = _num_tables(stored)
    ids_per_bag = max(
        int(np.diff(batch[f"offsets_{table}"], append=len(batch[f"ids_{table}"])).max())
        for batch in stored
        for table in range(num_tables)
    )
    sizes = [1] * num_tables
    for table in range(num_tables):
        largest = max(int(batch[f"ids_{table}"].max()) for batch in stored)
        for sizes[table] in range(largest + 1, 3 * largest + 50):
            if _equal(stored, _generator(stored, sizes, ids_per_bag, True), [table]):
                break
        else:
            raise AssertionError(f"no size of table {table} gives the stored ids")
    return sizes


@pytest.mark.parametrize("mode", ["fixed", "variable"])
def test_the_references_batches(mode: str) -> None:
    for file in golden_files("random_batches*.npz"):
        golden = np.load(file)
        stored, sizes = _stored(golden, mode), _sizes(_stored(golden, "fixed"))
        tables = range(len(sizes))
        ids_per_bag = next(
            number
            for number in range(1, 65)
            if _equal(stored, _generator(stored, sizes, number, mode == "fixed"), tables)
        )
        _compare(stored, _generator(stored, sizes, ids_per_bag, mode == "fixed"))


def _compare(stored: Batches, generator: RandomBatches) -> None:
    for batch, expected in zip(generator, stored, strict=True):
        np.testing.assert_array_equal(batch.dense, expected["dense"])
        np.testing.assert_array_equal(batch.labels, expected["label"])
        assert len(batch.ids) == len(batch.offsets) == _num_tables(stored)
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
