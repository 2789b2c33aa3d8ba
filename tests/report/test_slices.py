"""Slices: a wrong one that was planted is found and comes first; what is right is left in peace."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfdlrm.data.columns import Columns, RaggedColumn
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.vocabulary import Vocabulary
from tfdlrm.metrics.evaluation import log_losses, probability_of
from tfdlrm.report.groups import ValueNames, range_name
from tfdlrm.report.scored_rows import ScoredRows
from tfdlrm.report.slices import Slice, enough_rows, find_slices, ranked
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

SPEC = FeatureSpec(
    labels=("y",),
    dense=(DenseColumn(name="price", transform="log1p"),),
    categorical=(
        CategoricalColumn(name="city", encoding="vocabulary", id_policy="oov"),
        CategoricalColumn(name="kind"),
        CategoricalColumn(name="day", encoding="weekday"),
        CategoricalColumn(name="pair", table="kind", hotness=2),
        CategoricalColumn(name="tags", hotness=None),
    ),
    vocabulary_sizes={"city": 6, "kind": 8, "tags": 5},
)
VALUES = ["Rome", "Oslo", "Lima", "", "x" * 100]
PREPROCESSING = Preprocessing(spec=SPEC, vocabularies={"city": Vocabulary(pl.Series(VALUES), has_oov=True)})
ROWS = 40_000


def scored(seed: int, wrong=None) -> ScoredRows:
    """Right probabilities, but where `wrong(columns)` says by how much, in log odds, they are off."""
    random = np.random.default_rng(seed)
    ids = np.stack([random.integers(0, n, ROWS) for n in (6, 8, 8, 8, 8)], axis=1).astype("i4")
    lengths = random.integers(0, 4, ROWS)
    tags = RaggedColumn(
        values=random.integers(0, 5, lengths.sum()), row_splits=np.concatenate([[0], np.cumsum(lengths)])
    )
    truth = random.normal(-1.5, 1.0, ROWS)
    columns = Columns(
        dense=np.log1p(random.exponential(50, [ROWS, 1])).astype("f4"),
        labels=(random.random([ROWS, 1]) < probability_of(truth)[:, None]).astype("f4"),
        ids=ids,
        weights=np.zeros([ROWS, 0], "f4"),
        ragged={"tags": tags},
        keys={"row_id": np.arange(ROWS)},
    )
    logits = truth if wrong is None else truth + wrong(columns)
    return ScoredRows(
        spec=SPEC,
        task=0,
        labels=columns.labels[:, 0] > 0,
        logits=logits.astype("f4"),
        numbers=np.arange(ROWS),
        sample=columns,
        best=None,
    )


def found(rows: ScoredRows, **options: int) -> list[Slice]:
    return find_slices(rows, ValueNames(PREPROCESSING, rows.sample), **options)


def test_a_wrong_value_comes_first() -> None:
    rows = scored(1, lambda columns: 0.8 * (columns.ids[:, 0] == 2))
    slices = found(rows)
    worst = slices[0]
    assert (worst.columns, worst.values, worst.is_wrong) == (("city",), ("Oslo",), True)
    inside = rows.sample.ids[:, 0] == 2
    labels, logits = rows.labels[inside], rows.logits[inside]
    assert (worst.rows, worst.positives) == (inside.sum(), labels.sum())
    assert worst.predicted == pytest.approx(probability_of(logits).mean(), rel=1e-9)
    assert worst.log_loss == pytest.approx(log_losses(labels, logits).mean(), rel=1e-9)
    assert worst.ratio_interval[0] > 1.2
    assert worst.ratio == pytest.approx(worst.predicted / worst.rate)
    # nothing else is far off, and what is wrong stands before what is not
    flags = [each.is_wrong for each in slices]
    assert flags == sorted(flags, reverse=True)
    assert all(each.cost < worst.cost / 3 for each in slices[1:])


def test_a_wrong_pair_is_found_where_neither_half_tells() -> None:
    def sign(columns: Columns) -> np.ndarray:
        # off in opposite directions, so that each city and each kind is right on the whole
        city, kind = columns.ids[:, 0], columns.ids[:, 1]
        return 0.9 * np.where((city == 2) & (kind == 3), 1.0, 0.0) - 0.13 * np.where(
            (city == 2) & (kind != 3), 1.0, 0.0
        )

    worst = found(scored(2, sign))[0]
    assert dict(zip(worst.columns, worst.values, strict=True)) == {"city": "Oslo", "kind": "3"}
    assert worst.is_wrong


def test_what_is_right_is_not_wrong_because_the_rest_is() -> None:
    """One city pulls the whole down; the others are predicted as they are."""
    slices = found(scored(7, lambda columns: -2.5 * (columns.ids[:, 0] == 2)))
    assert slices[0].values == ("Oslo",)
    cities = [each for each in slices if each.columns == ("city",) and each.values != ("Oslo",)]
    assert len(cities) == 5
    assert not any(each.is_wrong for each in cities)
    # and what is wrong everywhere alike is wrong in no slice
    assert not any(each.is_wrong for each in found(scored(8, lambda columns: np.full(ROWS, 0.7))))


def test_aucs_of_slices_are_those_of_their_rows() -> None:
    rows = scored(9)
    names = ValueNames(PREPROCESSING, rows.sample).of("city", range(6))
    for each in found(rows):
        if each.columns == ("city",):
            place = names.index(each.values[0])
            inside = rows.sample.ids[:, 0] == place
            assert each.auc == pytest.approx(roc_auc_score(rows.labels[inside], rows.logits[inside]), abs=1e-12)


def test_the_cost_is_the_divergence_of_its_page() -> None:
    rows = scored(1, lambda columns: 0.8 * (columns.ids[:, 0] == 2))
    worst = found(rows)[0]
    r, p = worst.rate, worst.predicted
    divergence = r * np.log(r / p) + (1 - r) * np.log((1 - r) / (1 - p))
    assert 0.3 * divergence < worst.cost / (worst.rows / ROWS) <= divergence * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["pair", "tags", "price"])
def test_bags_and_numbers_are_sliced(kind: str) -> None:
    def wrong(columns: Columns) -> np.ndarray:
        if kind == "price":
            return 0.9 * (columns.dense[:, 0] > np.log1p(115))
        if kind == "pair":
            return 0.9 * (columns.ids[:, 3:] == 4).any(axis=1)
        bags = columns.ragged["tags"]
        return 0.9 * (
            np.bincount(np.repeat(np.arange(ROWS), np.diff(bags.row_splits))[bags.values == 1], minlength=ROWS) > 0
        )

    worst = found(scored(3, wrong))[0]
    assert worst.columns == (kind,)
    if kind == "price":
        assert worst.values[0].startswith(">= ")
        assert 100 < float(worst.values[0][3:]) < 130
    else:
        assert worst.values == ("4" if kind == "pair" else "1",)
        # a row with the id twice is one row
        assert worst.rows <= ROWS


def test_what_is_right_is_not_called_wrong() -> None:
    """Of 40 sets of right probabilities, in few is any slice called wrong: 5 % of them, were the slices independent."""
    wrong = sum(any(each.is_wrong for each in found(scored(seed))) for seed in range(100, 140))
    assert wrong <= 8


def test_few_rows_make_no_slice() -> None:
    rows = scored(5)
    assert all(each.rows >= 6000 for each in found(rows, minimum_rows=6000))
    assert found(rows, minimum_rows=ROWS + 1) == []
    assert ranked([]) == []
    assert [enough_rows(rows) for rows in (10**6, 2000, 100)] == [200, 80, 50]


def test_names_of_values() -> None:
    names = ValueNames(PREPROCESSING, scored(6).sample)
    assert names.of("city", [0, 1, 4]) == ["(unknown)", "Rome", "(empty)"]
    assert names.of("city", [5])[0].endswith("...")
    assert names.of("day", [0, 1, 7]) == ["(missing)", "Monday", "Sunday"]
    assert names.of("kind", [3]) == ["3"]
    assert names.of("price", [0])[0].startswith("< ")
    assert [range_name(-np.inf, 3.0), range_name(3.0, 4.5), range_name(-np.inf, np.inf)] == ["< 3", "3 to 4.5", "(all)"]
