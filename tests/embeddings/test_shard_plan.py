"""Every row is on one server, where the plan says, under any cut and permutation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdlrm import TableConfig, optimizers, preset
from tfdlrm.embeddings.placement.parameter_server import ParameterServerPlacement, _places
from tfdlrm.embeddings.placement.shard_store import ShardRows
from tfdlrm.embeddings.planner import plan_local, stored_tables
from tfdlrm.embeddings.shard_plan import Permutation, shard
from tfdlrm.embeddings.tables import EmbeddingTables


def _plan(sizes, **options):
    tables = [TableConfig(name=f"t{i}", vocabulary_size=size, embedding_dim=4, **options) for i, size in sizes]
    return plan_local(part for table in tables for part in stored_tables(table, optimizers.SGD(0.1)))


SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=5)


@given(SIZES, st.integers(1, 7), st.sampled_from([None, True, False]), st.integers(0, 9))
@settings(max_examples=60)
def test_every_row_has_one_place(sizes, num_servers, permute, seed):
    plan = shard(_plan(enumerate(sizes)), num_servers, seed=seed, min_shard_bytes=0, permute=permute)
    for sharded in plan.stacks:
        rows = tf.range(sharded.stack.num_rows)
        places = _places(sharded, rows).numpy()
        assert sorted(places) == list(range(sharded.stack.num_rows))
        assert sum(sharded.rows) == sharded.stack.num_rows
        for piece in sharded.pieces:
            ids = piece.permutation.ids(np.arange(piece.start, piece.stop, dtype=np.int64))
            expected = sharded.first_rows[piece.server] + piece.offset + np.arange(piece.num_rows)
            np.testing.assert_array_equal(places[piece.table_row + ids], expected)
        for server, first in enumerate(sharded.first_rows):
            held = [piece for piece in sharded.pieces if piece.server == server]
            if held:
                own = np.flatnonzero((places >= first) & (places < first + sharded.rows[server]))
                numbers = ShardRows("rows", held, 1, "bfloat16", 0).rounding_rows(tf.constant(places[own] - first))
                np.testing.assert_array_equal(numbers, own)


@given(st.integers(1, 10**9), st.integers(0, 2**20), st.data())
@settings(max_examples=50)
def test_a_permutation_and_its_inverse(size, key, data):
    factor = data.draw(st.integers(1, size).filter(lambda f: np.gcd(f, size) == 1))
    permutation = Permutation(size, factor % size if size > 1 else 1, key % size)
    ids = np.unique(np.linspace(0, size - 1, 50).astype(np.int64))
    np.testing.assert_array_equal(permutation.ids(permutation.positions(ids)), ids)


def test_hot_ids_are_spread_evenly():
    plan = shard(_plan([(0, 1_000_000)]), 4, min_shard_bytes=0)
    (sharded,) = plan.stacks
    frequency = 1.0 / np.arange(1, 1_000_001) ** 1.05
    servers = np.searchsorted(sharded.first_rows, _places(sharded, tf.range(1_000_000)).numpy(), side="right") - 1
    # the hottest id alone has 7 % of all lookups
    shares = [frequency[100:][servers[100:] == k].sum() / frequency[100:].sum() for k in range(4)]
    assert max(shares) < 0.30
    assert "permuted (by frequency one server would answer" in " ".join(plan.reasons)


def test_small_tables_are_whole_and_the_plan_says_why():
    plan = shard(_plan([(0, 10), (1, 20), (2, 200_000), (3, 1)]), 2)
    whole = {piece.table.name: piece.server for piece in plan.stacks[0].pieces if piece.table.name != "t2"}
    # the largest first, each to the server that holds the least
    assert whole == {"t1": 0, "t0": 1, "t3": 1}
    reasons = " ".join(plan.reasons)
    assert "t0: 10 rows whole on server 1, because a part of it would have less than 262.1 kB" in reasons
    assert "t3: 1 rows whole on server 1, which are fewer than the servers" in reasons
    assert "servers hold 1.6 MB, 1.6 MB: the largest 1.00x the mean" in reasons


@pytest.mark.parametrize("name", ["criteo-kaggle", "criteo-terabyte", "mlperf-dcnv2"])
@pytest.mark.parametrize("num_servers", [2, 3, 4, 8])
def test_servers_of_the_presets_are_balanced(name, num_servers):
    tables = preset(name).model.resolved_tables()
    optimizer = optimizers.RowwiseAdagrad(0.1)
    plan = shard(plan_local(part for table in tables for part in stored_tables(table, optimizer)), num_servers)
    assert max(plan.server_bytes) <= 1.1 * sum(plan.server_bytes) / num_servers


@given(SIZES, st.integers(1, 5), st.sampled_from([None, "learned", "fixed"]))
@settings(max_examples=8)
def test_the_plan_knows_what_servers_hold(sizes, num_servers, pooling_weights):
    plan = plan_local(
        part
        for i, size in enumerate(sizes)
        for part in stored_tables(
            TableConfig(name=f"t{i}", vocabulary_size=size, embedding_dim=4, pooling_weights=pooling_weights),
            optimizers.LazyAdam(0.1),
        )
    )
    shards = shard(plan, num_servers, min_shard_bytes=0)
    placement = ParameterServerPlacement(plan, 0, shards, ["/device:CPU:0"] * num_servers)
    placement.build()
    held = [
        sum(array.row_bytes * array.num_rows for k in server.stacks for _, array in server.store(k).arrays())
        for server in placement.servers
    ]
    assert held == list(shards.server_bytes)


def test_a_table_with_a_clipnorm_is_not_cut():
    tables = [TableConfig(name="a", vocabulary_size=900, embedding_dim=4, optimizer=optimizers.SGD(1.0, clipnorm=0.5))]
    plan = shard(plan_local(stored_tables(tables[0], optimizers.SGD(0.1))), 3, min_shard_bytes=0)
    assert len(plan.stacks[0].pieces) == 1
    assert any("clipnorm=0.5 is of the whole table" in reason for reason in plan.reasons)


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"\['other'\] are no stored tables\. There are: t0"):
        shard(_plan([(0, 10)]), 2, permute={"other": True})


@given(SIZES, st.sampled_from([1, 2, 3, 7]), st.sampled_from([None, True, False]))
@settings(max_examples=12)
def test_initial_rows_and_slices_do_not_depend_on_the_cut(sizes, num_servers, permute):
    configs = [TableConfig(name=f"t{i}", vocabulary_size=size, embedding_dim=4) for i, size in enumerate(sizes)]

    def placement(plan, seed):
        shards = shard(plan, num_servers, seed=seed, min_shard_bytes=0, permute=permute)
        return ParameterServerPlacement(plan, seed, shards, ["/device:CPU:0"] * num_servers)

    alone = EmbeddingTables(configs, optimizers.Adagrad(0.1), seed=3)
    cut = EmbeddingTables(configs, optimizers.Adagrad(0.1), seed=3, placement=placement)
    for tables in (alone, cut):
        tables.build()
    expected = {piece.name: piece.read(0, piece.stop).numpy() for piece in alone.slices()}
    random = np.random.default_rng(0)
    seen = dict.fromkeys(expected, 0)
    for piece in list(cut.slices()):
        count = piece.stop - piece.start
        np.testing.assert_array_equal(piece.read(0, count), expected[piece.name][piece.start : piece.stop])
        values = random.normal(size=[count, piece.width]).astype(np.float32)
        piece.write(0, values)
        np.testing.assert_array_equal(piece.read(0, count), values)
        seen[piece.name] += count
    assert seen == {name: len(rows) for name, rows in expected.items()}
