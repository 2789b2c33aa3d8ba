"""Tables cut over servers, on disk and row by row: any number restores any other, each moving its own part."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.embeddings.test_checkpoint import assert_same, filled, some_tables
from tfdlrm.config import TableConfig
from tfdlrm.embeddings.checkpoint import ITERATIONS, restore_tables, save_tables, write_parts
from tfdlrm.embeddings.optimizers import Adagrad
from tfdlrm.embeddings.placement.parameter_server import ParameterServerPlacement
from tfdlrm.embeddings.planner import ShardingPlan
from tfdlrm.embeddings.shard_plan import shard
from tfdlrm.embeddings.tables import EmbeddingTables


def over_servers(configs: list[TableConfig], num_servers: int, permute: bool | None) -> EmbeddingTables:
    """Tables cut over servers that are all this process; 0 for one process."""

    def placement(plan: ShardingPlan, seed: int) -> ParameterServerPlacement:
        shards = shard(plan, num_servers, seed=seed, min_shard_bytes=0, permute=permute)
        # of one process, and each by a name of its own: they are taken for servers that write side by side
        names = ["/CPU:0", "/device:CPU:0", "/task:0/CPU:0", "/task:0/device:CPU:0", "/replica:0/task:0/CPU:0"]
        return ParameterServerPlacement(plan, seed, shards, names[:num_servers])

    return EmbeddingTables(configs, Adagrad(0.1), seed=7, placement=placement if num_servers else None)


def whole_arrays(tables: EmbeddingTables) -> dict[str, bytes]:
    """Every array, from whatever pieces it lies in."""
    found: dict[str, np.ndarray] = {}
    for piece in tables.slices():
        whole = found.setdefault(piece.name, np.full([piece.total, piece.width], np.nan, np.float32))
        whole[piece.start : piece.stop] = piece.read(0, piece.stop - piece.start)
    return {name: rows.tobytes() for name, rows in found.items()}


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    servers=st.lists(st.integers(0, 5), min_size=2, max_size=3),
    permute=st.sampled_from([None, True, False]),
    row_dtype=st.sampled_from(["float32", "bfloat16"]),
    chunk_bytes=st.integers(1, 400),
)
def test_any_number_of_servers_restores_any_other(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    servers: list[int],
    permute: bool | None,
    row_dtype: str,
    chunk_bytes: int,
) -> None:
    """From one process over several numbers of servers and back: bit for bit, fewer rows than servers too."""
    folder = tmp_path_factory.mktemp("servers")
    configs = [
        TableConfig(name=f"t{i}", vocabulary_size=size, embedding_dim=3, row_dtype=row_dtype)  # type: ignore[arg-type]
        for i, size in enumerate(sizes)
    ]
    first = filled(configs, Adagrad(0.1))
    save_tables(first, folder / "0")
    for turn, count in enumerate([*servers, 0]):
        tables = over_servers(configs, count, permute)
        restore_tables(tables, folder / str(turn), chunk_bytes=chunk_bytes)
        assert whole_arrays(tables) == whole_arrays(first)
        save_tables(tables, folder / str(turn + 1), chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("permute", [True, False])
def test_servers_write_and_read_their_slices_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permute: bool
) -> None:
    configs = some_tables({"item": 50, "user": 2})
    first = filled(configs, Adagrad(0.1))
    save_tables(first, tmp_path / "alone")
    tables = over_servers(configs, 3, permute)
    together = threading.Barrier(4, timeout=60)  # the servers, and this process, which writes the count of updates
    moved: dict[str, list[tuple[str, int, int]]] = {}
    real = tf.raw_ops.SaveV2, tf.raw_ops.RestoreV2

    def recorded(operation: Any, **arguments: Any) -> Any:
        together.wait()
        found = operation(**arguments)
        for name, spec in zip(arguments["tensor_names"], arguments["shape_and_slices"], strict=True):
            start, _, count = spec.split()[2].partition(":")[0].partition(",") if spec else ("0", ",", "1")
            moved.setdefault(threading.current_thread().name, []).append((name, int(start), int(count)))
        return found

    monkeypatch.setattr("tfdlrm.embeddings.checkpoint._FLOAT_BYTES", 0)  # one chunk a slice, one group a server
    restore_tables(tables, tmp_path / "alone")
    monkeypatch.setattr(tf.raw_ops, "SaveV2", functools.partial(recorded, real[0]))
    save_tables(tables, tmp_path / "servers")
    arrays = [array for arrays in moved.values() for array in arrays]
    assert len(moved) == 4
    assert [array for array in arrays if array[0] == ITERATIONS] == [(ITERATIONS, 0, 1)]
    assert sorted(array for array in arrays if array[0] == "item/rows") == [
        ("item/rows", 0, 16),
        ("item/rows", 16, 17),
        ("item/rows", 33, 17),
    ]
    monkeypatch.undo()
    again = EmbeddingTables(configs, Adagrad(0.1), seed=5)
    restore_tables(again, tmp_path / "servers")
    assert_same(first, again)
    assert not [file for kind in ("mark", "answer", "server-") for file in tmp_path.glob(f"*{kind}*")]


def test_servers_that_do_not_see_the_folder_leave_it_to_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = some_tables()
    first = filled(configs, Adagrad(0.1))
    save_tables(first, tmp_path / "alone")
    tables = over_servers(configs, 2, True)
    parts: list[str] = []
    write = functools.partial(_recorded_write, parts, write_parts)
    monkeypatch.setattr("tfdlrm.embeddings.checkpoint.write_parts", write)
    # another machine's folder of the same name: what it reads is other, and nothing is written there
    written: list[str] = []
    monkeypatch.setattr(tf.io, "write_file", lambda name, _: written.append(name))
    monkeypatch.setattr(tf.io, "read_file", lambda _: tf.constant(b"another"))
    monkeypatch.setattr("tfdlrm.embeddings.checkpoint._APART", set())
    restore_tables(tables, tmp_path / "alone")
    save_tables(tables, tmp_path / "tables")
    assert parts == [str(tmp_path / "tables")]
    assert not written
    said = capsys.readouterr().err
    assert said.count(f"/CPU:0 does not share {tmp_path}: its rows of checkpoints are moved by this process.") == 1
    assert said.count("does not share") == 2  # once a server
    again = EmbeddingTables(configs, Adagrad(0.1), seed=5)
    restore_tables(again, tmp_path / "tables")
    assert_same(first, again)


def _recorded_write(parts: list[str], write: Any, prefix: Any, *args: Any, **kwargs: Any) -> Any:
    parts.append(str(prefix))
    return write(prefix, *args, **kwargs)


@pytest.mark.parametrize("permute", [True, False])
def test_rows_are_read_and_assigned_wherever_they_lie(permute: bool) -> None:
    """Also across the ends of the servers' ranges."""
    configs = some_tables({"item": 50})
    first = filled(configs, Adagrad(0.1))
    tables = over_servers(configs, 3, permute)
    tables.build()
    tables.assign_rows("item", first.rows("item"))
    np.testing.assert_array_equal(tables.rows("item"), first.rows("item"))
    np.testing.assert_array_equal(tables.rows("item", 10, 40), first.rows("item", 10, 40))
    assert tables.rows("item", 20, 20).shape == (0, 4)
    tables.assign_rows("item", np.ones((20, 4)), 15)
    np.testing.assert_array_equal(tables.rows("item", 15, 35), np.ones((20, 4)))
    np.testing.assert_array_equal(tables.rows("item", 35), first.rows("item", 35))
    with pytest.raises(ValueError, match="item/rows: got rows of shape"):
        tables.assign_rows("item", np.ones((20, 5)), 15)
