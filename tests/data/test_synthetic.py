"""Synthetic rows: any part at any time, ids by the power law, labels by the teacher, scores that are known."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.sample_rows import assert_same_columns
from tfdlrm.config import DataConfig, SyntheticConfig
from tfdlrm.data import Preprocessing, best_possible, open_dataset, synthetic_dataset
from tfdlrm.data.columns import concatenate
from tfdlrm.data.power_law import NUM_EXACT_IDS, PowerLaw
from tfdlrm.data.synthetic import SEED_BLOCK_ROWS, TEACHER_PROBABILITY, SyntheticRows
from tfdlrm.data.teacher import expected_auc, expected_log_loss

CONFIG = SyntheticConfig(
    num_rows=40_000, num_dense=4, vocabulary_sizes=(50, 8, 300_000, 12, 50), teacher_scale=1.5, seed=3
)


@pytest.fixture(scope="module")
def rows() -> SyntheticRows:
    return SyntheticRows(CONFIG)


@pytest.fixture(scope="module")
def all_rows(rows: SyntheticRows):
    return rows.read_block(0)


def test_any_part_can_be_made_by_itself(all_rows) -> None:
    assert all_rows.num_rows == CONFIG.num_rows
    assert_same_columns(SyntheticRows(CONFIG).read_block(0), all_rows)
    for start, stop in (
        (0, 1),
        (5, 17),
        (SEED_BLOCK_ROWS - 1, SEED_BLOCK_ROWS + 1),
        (39_999, 40_000),
        (20_000, 40_000),
    ):
        assert_same_columns(SyntheticRows(CONFIG, start, stop).read_block(0), all_rows.slice(start, stop))


def test_rows_do_not_depend_on_how_many_there_are(all_rows) -> None:
    fewer = SyntheticRows(replace(CONFIG, num_rows=100)).read_block(0)
    assert_same_columns(fewer, all_rows.slice(0, 100))


def test_blocks_follow_one_another() -> None:
    source = SyntheticRows(replace(CONFIG, num_rows=150_000))
    blocks = [source.read_block(block) for block in range(3)]
    assert [block.num_rows for block in blocks] == [65_536, 65_536, 18_928]
    joined = concatenate(blocks)
    assert joined.keys["row_id"].tolist() == list(range(150_000))
    assert_same_columns(joined.slice(60_000, 70_000), SyntheticRows(source._config, 60_000, 70_000).read_block(0))


def test_seeds_differ(all_rows) -> None:
    other = SyntheticRows(replace(CONFIG, seed=4)).read_block(0)
    assert (other.ids != all_rows.ids).any()
    assert (other.keys[TEACHER_PROBABILITY] != all_rows.keys[TEACHER_PROBABILITY]).mean() > 0.99


def test_shapes_and_ranges(all_rows) -> None:
    assert all_rows.dense.shape == (40_000, 4)
    assert all_rows.dense.dtype == np.float32
    assert all_rows.ids.dtype == np.int32
    assert (all_rows.ids >= 0).all()
    assert (all_rows.ids < np.array(CONFIG.vocabulary_sizes)).all()
    counts = np.expm1(all_rows.dense)  # ln(count + 1) of whole counts
    np.testing.assert_allclose(counts, counts.round(), rtol=1e-5, atol=1e-5)
    assert (all_rows.dense >= 0).all()
    assert set(np.unique(all_rows.labels)) == {0.0, 1.0}


def test_labels_are_drawn_with_the_teachers_probability(all_rows) -> None:
    """Within 4 standard deviations in every tenth of the rows by probability, and overall."""
    probability, labels = all_rows.keys[TEACHER_PROBABILITY].astype(np.float64), all_rows.labels[:, 0]
    assert abs(probability.mean() - CONFIG.positive_rate) < 0.01
    order = np.argsort(probability)
    for tenth in np.array_split(order, 10):
        deviation = np.sqrt((probability[tenth] * (1 - probability[tenth])).sum())
        assert abs(labels[tenth].sum() - probability[tenth].sum()) < 4 * deviation
    logits = np.log(probability / (1 - probability))
    assert logits.std() == pytest.approx(CONFIG.teacher_scale, rel=0.05)


def test_features_are_independent_of_each_other(all_rows) -> None:
    """Correlations of 40,000 rows: below 5 / sqrt(n)."""
    columns = np.concatenate([all_rows.dense, all_rows.ids[:, [0, 1, 3, 4]]], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(40_000)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.05, 1.8])
@pytest.mark.parametrize("size", [1, 2, 100, NUM_EXACT_IDS, 50_000, 3_000_000])
def test_the_power_law(size: int, exponent: float) -> None:
    """Chi-square over ids in 60 groups of about equal probability, within 5 standard deviations."""
    num_draws = 200_000
    ids = PowerLaw(size, exponent).draw(np.random.Generator(np.random.SFC64(size)), num_draws)
    assert ids.min() >= 0
    assert ids.max() < size
    weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    probability = weights / weights.sum()
    groups = np.minimum((np.cumsum(probability) * 60).astype(int), 59)
    expected = np.bincount(groups, probability, minlength=60) * num_draws
    found = np.bincount(groups[ids], minlength=60)
    present = expected > 0
    assert (found[~present] == 0).all()
    statistic = ((found - expected)[present] ** 2 / expected[present]).sum()
    degrees = present.sum() - 1
    assert statistic <= degrees + 5 * np.sqrt(2 * degrees)


def test_hotness_and_missing_cells() -> None:
    config = SyntheticConfig(
        num_rows=20_000,
        num_dense=2,
        vocabulary_sizes=(40, 30),
        hotness=(3, 1),
        missing_fraction=0.3,
        power_law_exponent=0.0,
    )
    dataset = synthetic_dataset(config)
    features, labels = next(iter(dataset.batches(16)))
    assert features["cat_1"].shape == (16, 3)
    assert features["cat_2"].shape == (16,)
    assert labels.shape == (16, 1)
    rows = SyntheticRows(config).read_block(0)
    empty_bags = (rows.ids[:, :3] == 0).all(axis=1).mean()
    assert empty_bags == pytest.approx(0.3, abs=0.02)
    assert (rows.ids[:, 3] == 0).mean() == pytest.approx(0.3 + 0.7 / 30, abs=0.02)
    zeros = (rows.dense == 0).mean(axis=0)
    present = (SyntheticRows(replace(config, missing_fraction=0.0)).read_block(0).dense == 0).mean(axis=0)
    np.testing.assert_allclose(zeros, 0.3 + 0.7 * present, atol=0.02)


def test_no_dense_columns_and_a_single_table() -> None:
    dataset = synthetic_dataset(SyntheticConfig(num_rows=50, num_dense=0, vocabulary_sizes=(20,)))
    features, _ = next(iter(dataset.batches(50)))
    assert list(features) == ["cat_1"]


def test_splits_are_contiguous_parts() -> None:
    splits = open_dataset(DataConfig(synthetic=CONFIG, split="time"))
    assert {name: part.num_rows for name, part in splits.parts.items()} == {
        "train": 32_000,
        "validation": 4_000,
        "test": 4_000,
    }
    (_, _, keys) = next(iter(splits.parts["test"].batches(2, with_keys=True)))
    assert keys["row_id"].numpy().tolist() == [36_000, 36_001]
    whole = open_dataset(DataConfig(synthetic=CONFIG, max_rows=1_000))
    assert list(whole.parts) == ["train"]
    assert whole.train.num_rows == whole.books.read == 1_000
    with pytest.raises(ValueError, match=r"needs data\.synthetic"):
        open_dataset(DataConfig())
    with pytest.raises(ValueError, match="schema and id_modulo have no meaning"):
        open_dataset(DataConfig(synthetic=CONFIG, id_modulo=3))


def test_the_best_possible_scores(all_rows) -> None:
    best = best_possible(synthetic_dataset(CONFIG))
    assert best is not None
    np.testing.assert_array_equal(best.labels, all_rows.labels[:, 0])
    np.testing.assert_array_equal(best.probability, all_rows.keys[TEACHER_PROBABILITY])
    p = best.probability.astype(np.float64)
    on_labels = -(best.labels * np.log(p) + (1 - best.labels) * np.log1p(-p)).mean()
    assert on_labels == pytest.approx(best.expected_log_loss, abs=0.01)
    order = np.argsort(p)
    ranks = np.empty(len(p))
    ranks[order] = np.arange(1, len(p) + 1)
    positives = best.labels.sum()
    auc = (ranks[best.labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(p) - positives))
    assert auc == pytest.approx(best.expected_auc, abs=0.01)
    assert 0.78 < best.expected_auc < 0.84


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0.01, 0.2, 0.2, 0.5, 0.9]), min_size=2, max_size=8))
def test_expected_scores_are_the_mean_over_all_labels(values: list[float]) -> None:
    p = np.array(values)
    pairs = [(i, j) for i in range(len(p)) for j in range(len(p))]
    wins = sum(p[i] * (1 - p[j]) * (float(p[i] > p[j]) + 0.5 * float(p[i] == p[j])) for i, j in pairs)
    assert expected_auc(p) == pytest.approx(wins / (p.sum() * (1 - p).sum()), rel=1e-12)
    assert expected_log_loss(p) == pytest.approx(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(), rel=1e-12)


def test_the_pair_term_is_the_sum_over_pairs(rows: SyntheticRows, all_rows) -> None:
    """The teacher's logit again, pair by pair, from its own numbers."""
    teacher = rows._teacher
    part = all_rows.slice(0, 50)
    ids = [part.ids[:, [place]] for place in range(5)]
    vectors = {
        f: teacher._vectors[f][np.minimum(ids[f][:, 0], len(teacher._vectors[f]) - 1)] for f in teacher._interacting
    }
    pairs = sum((vectors[f] * vectors[g]).sum(axis=1) for f in vectors for g in vectors if f > g)
    single = sum(teacher._effects[f][np.minimum(ids[f][:, 0], len(teacher._effects[f]) - 1)] for f in range(5))
    terms = np.stack([single, pairs, part.dense @ teacher._dense_weights])
    logits = teacher._factors @ (terms - teacher._means[:, None]) + teacher._intercept
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), part.keys[TEACHER_PROBABILITY], rtol=1e-4)


def test_synthetic_rows_need_no_polars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reading a file without it names the extra."""
    monkeypatch.setitem(sys.modules, "polars", None)
    for name, module in list(sys.modules.items()):
        if name.startswith("tfdlrm.data.prepare.") or (name.startswith("tfdlrm.data.") and hasattr(module, "pl")):
            monkeypatch.delitem(sys.modules, name)
    splits = open_dataset(DataConfig(synthetic=CONFIG, split="time"))
    splits.preprocessing.save(tmp_path)
    assert Preprocessing.load(tmp_path).spec == splits.spec
    assert len(list(splits.train.batches(10_000))) == 4
    with pytest.raises(ImportError, match=re.escape("pip install 'tfdlrm[data]'")):
        open_dataset(DataConfig(format="criteo", path=str(tmp_path / "schema.yaml")))
