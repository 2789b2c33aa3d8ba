"""Teacher: the planted function from which synthetic labels are drawn, so that the best possible scores are known.

logit = scale * (sqrt(s1) * sum_f effect_f + sqrt(s2) * sum_{f>g} <v_f, v_g> + sqrt(s3) * <w, z>) + intercept

effect_f and v_f are sums over the bag of feature f of numbers drawn for every id; z are the standardized dense
columns; the pair sum runs over a few interacting features. Each of the three terms is scaled to variance 1, and
s1 + s2 + s3 = 1, so `scale` is about the standard deviation of the logit. It is a function a small DLRM can represent:
first-order effects through the dot product with the bottom MLP's output, pairs through the dot products.

So that it can be learnt from a million rows, effects shrink with the rarity of an id: one expected in
`HALF_EFFECT_ROWS` of a million rows has half of the effect drawn for it, and ids from `NUM_IDS_WITH_EFFECT` on have
none.

Where hot ids move from day to day, a teacher sees ranks: the strength of an effect belongs to the rank, the number
drawn for it to the id.
"""

from __future__ import annotations

import copy

import numpy as np

from tfdlrm.data.columns import RaggedColumn
from tfdlrm.data.power_law import PowerLaw

NUM_IDS_WITH_EFFECT = 2**12
HALF_EFFECT_ROWS = 20_000.0
_MILLION_ROWS = 1e6

# Features whose hidden vectors meet in pairs. All 26 would make 325 pairs, each too weak to be learnt.
NUM_INTERACTING = 4

# Shares of the logit's variance: single ids, pairs of ids, dense columns.
SHARES = (0.50, 0.12, 0.38)

Bags = np.ndarray | RaggedColumn


class Teacher:
    """The true probability of a row.

    Args:
        laws: the law each feature's ids are drawn from.
        dense_std: [num_dense], of each dense column; their weights are drawn for standardized values.
        dim: width of the hidden vectors.
        generator: draws every number of the teacher.
    """

    def __init__(self, laws: list[PowerLaw], dense_std: np.ndarray, dim: int, generator: np.random.Generator) -> None:
        self._dim = dim
        self._interacting = sorted(int(f) for f in generator.permutation(len(laws))[:NUM_INTERACTING])
        self._dense_std = dense_std
        self._dense_draws = generator.standard_normal(len(dense_std))
        self._strengths: list[np.ndarray] = []
        self._effect_draws: list[np.ndarray] = []
        self._vector_draws: dict[int, np.ndarray] = {}
        for feature, law in enumerate(laws):
            num_ids = min(law.num_exact, NUM_IDS_WITH_EFFECT)
            expected = law.head_probabilities[:num_ids] * _MILLION_ROWS
            self._strengths.append(expected / (expected + HALF_EFFECT_ROWS))
            self._effect_draws.append(generator.standard_normal(num_ids))
            vectors = generator.standard_normal((num_ids, dim))
            if feature in self._interacting:
                self._vector_draws[feature] = vectors
        self._factors = np.ones(3, np.float32)
        self._means = np.zeros(3, np.float32)
        self._scale = 1.0
        self._intercept = 0.0
        self._fill_tables()

    def next_day(self, generator: np.random.Generator, share: float, steps: list[int]) -> Teacher:
        """The teacher of the day after, which is to be calibrated.

        Every number x becomes sqrt(1 - share) * x + sqrt(share) * (a new draw): its variance stays.

        Args:
            generator: draws the new numbers.
            share: of the variance that is new.
            steps: by feature, how far ids move: rank r has the id that rank r + step had.
        """

        def renewed(draws: np.ndarray) -> np.ndarray:
            return np.sqrt(1.0 - share) * draws + np.sqrt(share) * generator.standard_normal(draws.shape)

        day = copy.copy(self)
        day._dense_draws = renewed(self._dense_draws)
        day._effect_draws = [
            renewed(np.roll(draws, -step)) for draws, step in zip(self._effect_draws, steps, strict=True)
        ]
        day._vector_draws = {
            feature: renewed(np.roll(draws, -steps[feature], axis=0)) for feature, draws in self._vector_draws.items()
        }
        day._fill_tables()
        return day

    def _fill_tables(self) -> None:
        """Draws times strengths, and one more entry, 0, for all further ids."""
        self._dense_weights = (self._dense_draws / self._dense_std).astype(np.float32)
        self._effects = [
            np.append(draws * strength, 0.0).astype(np.float32)
            for draws, strength in zip(self._effect_draws, self._strengths, strict=True)
        ]
        self._vectors = {}
        for feature, draws in self._vector_draws.items():
            vectors = draws * self._strengths[feature][:, None]
            self._vectors[feature] = np.concatenate([vectors, np.zeros((1, self._dim))]).astype(np.float32)

    def calibrate(self, ids: list[Bags], dense: np.ndarray, scale: float, positive_rate: float) -> None:
        """Set the factors of the terms and the intercept on a sample of rows.

        Args:
            ids: by feature, [n, H] or ragged.
            dense: float32 [num_dense, n].
            scale: standard deviation of the logit.
            positive_rate: mean probability.
        """
        terms = np.stack(self._terms(ids, dense))
        self._means = terms.mean(axis=1)
        spread = terms.std(axis=1)
        present = spread > 1e-6
        shares = np.where(present, SHARES, 0.0)
        shares = shares / shares.sum() if shares.any() else shares
        self._factors = (scale * np.sqrt(shares) / np.where(present, spread, 1.0)).astype(np.float32)
        logits = self._factors @ (terms - self._means[:, None])
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            rate = _sigmoid(logits + middle).mean()
            low, high = (middle, high) if rate < positive_rate else (low, middle)
        self._intercept = (low + high) / 2

    def probability(self, ids: list[Bags], dense: np.ndarray) -> np.ndarray:
        """float32 [n].

        Args:
            ids: by feature, [n, H] or ragged.
            dense: float32 [num_dense, n].
        """
        single, pairs, linear = self._terms(ids, dense)
        logits = self._factors[0] * single + self._factors[1] * pairs + self._factors[2] * linear
        return _sigmoid(logits + np.float32(self._intercept - self._factors @ self._means))

    def _terms(self, ids: list[Bags], dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        num_rows = dense.shape[1]
        single = np.zeros(num_rows, np.float32)
        total = np.zeros((num_rows, self._dim), np.float32)
        squares = np.zeros(num_rows, np.float32)
        for feature, bag in enumerate(ids):
            effects = self._effects[feature]
            known = np.minimum(bag.values if isinstance(bag, RaggedColumn) else bag, len(effects) - 1)
            single += _pooled(np.take(effects, known), bag)
            if feature in self._vectors:
                vectors = _pooled(np.take(self._vectors[feature], known, axis=0), bag)
                total += vectors
                squares += np.einsum("nd,nd->n", vectors, vectors)
        # the sum over pairs f > g of <v_f, v_g> is (|sum v|^2 - sum |v|^2) / 2
        pairs = (np.einsum("nd,nd->n", total, total) - squares) / 2
        return single, pairs, self._dense_weights @ dense


def _pooled(items: np.ndarray, bag: Bags) -> np.ndarray:
    """Sums over the ids of each bag; a sum over one item is a copy NumPy takes long for."""
    if isinstance(bag, RaggedColumn):
        # in float64: a difference of sums over all rows before
        sums = np.zeros((len(items) + 1, *items.shape[1:]))
        np.cumsum(items, axis=0, dtype=np.float64, out=sums[1:])
        return (sums[bag.row_splits[1:]] - sums[bag.row_splits[:-1]]).astype(np.float32)
    return items[:, 0] if items.shape[1] == 1 else items.sum(axis=1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits))


def expected_log_loss(probability: np.ndarray) -> float:
    """Mean log loss of the true probabilities, over all labels they could give: the mean entropy, in nats."""
    p = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


def expected_auc(probability: np.ndarray) -> float:
    """AUC of the true probabilities, over all labels they could give.

    Sum over pairs of p_i (1 - p_j) ([p_i > p_j] + [p_i = p_j] / 2), divided by (sum p) (sum 1 - p): every row counts as
    p of a positive and 1 - p of a negative.
    """
    values, groups = np.unique(probability.astype(np.float64), return_inverse=True)
    counts = np.bincount(groups)
    positives, negatives = values * counts, (1 - values) * counts
    below = np.cumsum(negatives) - negatives
    total = positives.sum() * negatives.sum()
    return float((positives * (below + negatives / 2)).sum() / total) if total else float("nan")
