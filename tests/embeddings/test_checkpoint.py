"""Tables on disk: any plan restores what any other saved, and everything else is refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.full_disk import file_size_limit
from tfdlrm.config import QuotientRemainderConfig, TableConfig
from tfdlrm.embeddings.checkpoint import (
    ITERATIONS,
    DamagedCheckpointError,
    is_slot,
    merge_parts,
    restore_tables,
    save_tables,
    saved_shapes,
    write_parts,
)
from tfdlrm.embeddings.optimizers import SGD, Adagrad, LazyAdam, RowOptimizer, RowwiseAdagrad
from tfdlrm.embeddings.placement.base import TableSlice
from tfdlrm.embeddings.planner import ShardingPlan, Stack, StoredTable
from tfdlrm.embeddings.tables import EmbeddingTables


def unfused(tables: Iterable[StoredTable]) -> ShardingPlan:
    """Each table in a variable of its own, in the opposite order."""
    stacks = tuple(Stack(name=f"alone_{i}", tables=(t,), offsets=(0,)) for i, t in enumerate(reversed(list(tables))))
    return ShardingPlan(stacks=stacks, reasons=())


def some_tables(sizes: dict[str, int] | None = None, width: int = 4) -> list[TableConfig]:
    sizes = sizes or {"item": 50, "user": 7, "one_row": 1}
    return [TableConfig(name=name, vocabulary_size=size, embedding_dim=width) for name, size in sizes.items()]


def mixed_tables() -> list[TableConfig]:
    """Every kind of stored array: fused, of another width, quotient-remainder, learned pooling weights."""
    return [
        *some_tables(),
        TableConfig(name="wide", vocabulary_size=9, embedding_dim=6, optimizer=LazyAdam(0.1)),
        TableConfig(
            name="split",
            vocabulary_size=30,
            embedding_dim=4,
            quotient_remainder=QuotientRemainderConfig(threshold=0),
        ),
        TableConfig(name="weighted", vocabulary_size=5, embedding_dim=4, pooling_weights="learned"),
    ]


def filled(configs: list[TableConfig], optimizer: RowOptimizer | None = None, seed: int = 1) -> EmbeddingTables:
    """Tables whose every array holds numbers that occur nowhere else."""
    tables = EmbeddingTables(configs, optimizer or RowwiseAdagrad(0.1))
    tables.build()
    random = np.random.default_rng(seed)
    for piece in tables.slices():
        piece.write(0, random.normal(size=(piece.stop - piece.start, piece.width)).astype(np.float32))
    tables.iterations.assign(17)
    return tables


def contents(tables: EmbeddingTables) -> dict[str, np.ndarray]:
    return {piece.name: piece.read(0, piece.total).numpy() for piece in tables.slices()}


def assert_same(left: EmbeddingTables, right: EmbeddingTables) -> None:
    a, b = contents(left), contents(right)
    assert sorted(a) == sorted(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert int(left.iterations) == int(right.iterations)


def sharded(slices: Iterable[TableSlice], cuts: list[float]) -> Iterator[TableSlice]:
    """The same arrays as a placement would hand them out that divides rows at these fractions; parts may be empty."""
    for piece in slices:
        edges = [0, *sorted(int(cut * piece.total) for cut in cuts), piece.total]
        for start, stop in itertools.pairwise(edges):
            yield piece._replace(
                start=start,
                stop=stop,
                read=lambda a, b, piece=piece, start=start: piece.read(start + a, start + b),
                write=lambda a, values, piece=piece, start=start: piece.write(start + a, values),
            )


class ShardedTables:
    """Tables behind a placement that divides every array at given fractions."""

    def __init__(self, tables: EmbeddingTables, cuts: list[float]):
        self.tables, self.cuts, self.iterations = tables, cuts, tables.iterations

    def build(self) -> None:
        self.tables.build()

    def slices(self) -> Iterator[TableSlice]:
        return sharded(self.tables.slices(), self.cuts)


@pytest.mark.parametrize("chunk_bytes", [1, 64, 2**26])
def test_another_plan_restores_everything(tmp_path: Path, chunk_bytes: int) -> None:
    tables = filled(mixed_tables())
    save_tables(tables, tmp_path / "tables", chunk_bytes=chunk_bytes)
    other = EmbeddingTables(mixed_tables(), RowwiseAdagrad(0.1), seed=99, plan=unfused)
    restore_tables(other, tmp_path / "tables", chunk_bytes=48)
    assert_same(tables, other)
    assert not list(tmp_path.glob("*.part-*"))


def test_every_array_is_saved_under_its_own_name(tmp_path: Path) -> None:
    save_tables(filled(mixed_tables()), tmp_path / "tables")
    shapes = saved_shapes(tmp_path / "tables")
    assert shapes["item/rows"] == (50, 4)
    assert shapes["item/accumulator"] == (50, 1)
    assert shapes["split/quotient/rows"] == (8, 4)
    assert shapes["split/remainder/rows"] == (4, 4)
    assert shapes["weighted/pooling_weights"] == (5, 1)
    assert shapes["wide/velocity"] == (9, 6)
    assert [name for name in shapes if is_slot(name) and name.startswith("weighted")] == [
        "weighted/accumulator",
        "weighted/pooling_weights/accumulator",
    ]


cuts = st.lists(st.floats(0, 1), max_size=6)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    saved_cuts=cuts,
    restored_cuts=cuts,
    chunk_bytes=st.integers(1, 400),
)
def test_any_sharding_restores_any_other(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    saved_cuts: list[float],
    restored_cuts: list[float],
    chunk_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("sharding")
    configs = some_tables({f"t{i}": size for i, size in enumerate(sizes)}, width=3)
    tables = filled(configs, Adagrad(0.1))
    save_tables(ShardedTables(tables, saved_cuts), folder / "tables", chunk_bytes=chunk_bytes)  # type: ignore[arg-type]
    other = EmbeddingTables(configs, Adagrad(0.1), seed=5, plan=unfused)
    other.build()
    restore_tables(ShardedTables(other, restored_cuts), folder / "tables", chunk_bytes=97)  # type: ignore[arg-type]
    assert_same(tables, other)


def test_processes_write_their_own_parts(tmp_path: Path) -> None:
    tables = filled(some_tables())
    shards = list(sharded(tables.slices(), [0.3, 0.6]))
    parts = write_parts(tmp_path / "process-0", shards[::2], scalars={ITERATIONS: tables.iterations.read_value()})
    parts += write_parts(tmp_path / "process-1", shards[1::2])
    merge_parts(parts, tmp_path / "tables")
    other = EmbeddingTables(some_tables(), RowwiseAdagrad(0.1), seed=3)
    restore_tables(other, tmp_path / "tables")
    assert_same(tables, other)


def test_no_more_than_the_chunk_is_read_at_a_time(tmp_path: Path) -> None:
    tables = filled(some_tables({"item": 1000}))
    read_bytes: list[int] = []

    class Watched(ShardedTables):
        def slices(self) -> Iterator[TableSlice]:
            for piece in self.tables.slices():
                yield piece._replace(
                    read=lambda a, b, p=piece: (read_bytes.append((b - a) * p.width * 4), p.read(a, b))[1]
                )

    save_tables(Watched(tables, []), tmp_path / "tables", chunk_bytes=1024)  # type: ignore[arg-type]
    assert max(read_bytes) <= 1024
    assert sum(read_bytes) == tables.num_bytes


def test_weights_alone_leave_slots_and_count_as_they_are(tmp_path: Path) -> None:
    tables = filled(mixed_tables())
    save_tables(tables, tmp_path / "tables")
    without = [table for table in mixed_tables() if table.name != "wide"] + [
        TableConfig(name="wide", vocabulary_size=9, embedding_dim=6)
    ]
    other = EmbeddingTables(without, SGD(0.1))
    restore_tables(other, tmp_path / "tables", weights_only=True)
    before = contents(tables)
    for name, values in contents(other).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    assert int(other.iterations) == 0


@pytest.mark.parametrize(
    ("saved", "restored", "message"),
    [
        (
            RowwiseAdagrad(0.1),
            Adagrad(0.1),
            r"'item': row optimizer slot 'accumulator' was saved as \[50, 1\], .*\[50, 4\]",
        ),
        (
            SGD(0.1),
            Adagrad(0.1),
            r"slot 'accumulator' was saved as absent, the model's is \[50, 4\].*weights_only",
        ),
        (
            LazyAdam(0.1),
            SGD(0.1),
            r"slot 'momentum' was saved as \[50, 4\], the model's is absent.*weights_only",
        ),
    ],
)
def test_another_row_optimizer_is_refused_by_slot(
    tmp_path: Path, saved: RowOptimizer, restored: RowOptimizer, message: str
) -> None:
    save_tables(filled(some_tables(), saved), tmp_path / "tables")
    with pytest.raises(ValueError, match=message):
        restore_tables(EmbeddingTables(some_tables(), restored), tmp_path / "tables")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            some_tables({"item": 51, "user": 7, "one_row": 1}),
            r"'item': rows were saved as \[50, 4\], the model's are \[51, 4\]",
        ),
        (
            some_tables(width=8),
            r"'item': rows were saved as \[50, 4\], the model's are \[50, 8\].*embedding_dim",
        ),
        (
            some_tables({"article": 50, "user": 7, "one_row": 1}),
            r"table 'article': no rows \[50, 4\] in the checkpoint.*'item'",
        ),
        (
            some_tables({"item": 50, "user": 7}),
            r"table 'one_row': its rows \[1, 4\] in the checkpoint have no place",
        ),
    ],
)
@pytest.mark.parametrize("weights_only", [False, True])
def test_another_model_is_refused_by_table(
    tmp_path: Path, tables: list[TableConfig], message: str, weights_only: bool
) -> None:
    save_tables(filled(some_tables()), tmp_path / "tables")
    other = EmbeddingTables(tables, RowwiseAdagrad(0.1))
    other.build()
    before = contents(other)
    with pytest.raises(ValueError, match=message):
        restore_tables(other, tmp_path / "tables", weights_only=weights_only)
    for name, values in contents(other).items():
        np.testing.assert_array_equal(values, before[name])


def test_missing_rows_are_an_error(tmp_path: Path) -> None:
    tables = filled(some_tables({"item": 50}))
    shards = list(sharded(tables.slices(), [0.5]))
    parts = write_parts(
        tmp_path / "half", [s for s in shards if s.start == 0], scalars={ITERATIONS: tf.constant(1, tf.int64)}
    )
    merge_parts(parts, tmp_path / "tables")
    with pytest.raises(DamagedCheckpointError, match=r"item/rows.*sufficient slices"):
        restore_tables(filled(some_tables({"item": 50})), tmp_path / "tables")


def test_damaged_files_are_an_error(tmp_path: Path) -> None:
    tables = filled(some_tables())
    save_tables(tables, tmp_path / "tables", chunk_bytes=100)
    data = sorted(tmp_path.glob("tables.data-*"))
    whole = data[0].read_bytes()
    for damaged in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        data[0].write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError, match="tables"):
            restore_tables(tables, tmp_path / "tables")
    data[0].unlink()
    with pytest.raises(DamagedCheckpointError, match="tables"):
        restore_tables(tables, tmp_path / "tables")
    (tmp_path / "tables.index").write_bytes((tmp_path / "tables.index").read_bytes()[:20])
    with pytest.raises(DamagedCheckpointError, match="index"):
        restore_tables(tables, tmp_path / "tables")


def test_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpointError, match="index"):
        restore_tables(EmbeddingTables(some_tables()), tmp_path / "tables")


def test_a_full_disk_is_an_os_error(tmp_path: Path) -> None:
    tables = filled(some_tables({"item": 5000}))
    with file_size_limit(1000), pytest.raises(OSError, match=r"tables.part-00000: cannot be written"):
        save_tables(tables, tmp_path / "tables")
