"""What the serving benchmark asks: queries of one user and some candidates. NumPy only, for every side.

Query sizes follow MLPerf Inference's dlrm-v2: a sample of its load generator stands for 100 to 700 user-item pairs,
drawn from the quantiles of `recommendation/dlrm_v2/pytorch/tools/dist_quantile.txt` (mlcommons/inference) with equal
chances: 270 pairs on average. There a query is that many rows of Criteo one after another; here the rows share the
user's features, so that a full-row model and one that ranks a user's candidates answer the same question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from workload import NUM_DENSE, Workload

QUERY_SIZE_QUANTILES = (
    100, 100, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 300, 300, 400, 500, 600, 700,
)  # fmt: skip
DENSE = "dense"
NUM_USER_FEATURES = 20  # of the 26; the dense values are the user's too
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Query:
    """N candidates of one user as full rows: `dense` [N, 13] float32, `ids` [N, 26] int64.

    The first `NUM_USER_FEATURES` columns of `ids`, and `dense`, are the same in every row.
    """

    dense: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.dense)

    def columns(self, *, once: bool) -> dict[str, np.ndarray]:
        """Columns by input name, `[N]` and `[N, 13]`; with `once` the user's are `[1]` and `[1, 13]`."""
        rows = 1 if once else len(self)
        columns = {DENSE: self.dense[:rows]}
        for index, name in enumerate(feature_names(self.ids.shape[1])):
            columns[name] = np.ascontiguousarray(self.ids[: rows if index < NUM_USER_FEATURES else None, index])
        return columns


def feature_names(count: int) -> tuple[str, ...]:
    """The preset's: cat_1, cat_2, .."""
    return tuple(f"cat_{index + 1}" for index in range(count))


def candidate_features(workload: Workload) -> tuple[str, ...]:
    """Inputs that are a candidate's."""
    return feature_names(workload.num_features)[NUM_USER_FEATURES:]


def query_sizes(count: int, generator: np.random.Generator) -> list[int]:
    """Pairs of each of `count` queries, by the published quantiles."""
    return generator.choice(QUERY_SIZE_QUANTILES, count).tolist()


def make_queries(workload: Workload, sizes: Sequence[int], *, seed: int = SEED) -> list[Query]:
    """One query of each size; ids follow the workload's power law. The same on every side."""
    generator = np.random.default_rng(seed)
    vocabulary = np.asarray(workload.vocabulary_sizes)
    queries = []
    for size in sizes:
        dense = np.log1p(generator.exponential(3, (1, NUM_DENSE))).astype(np.float32)
        uniform = generator.random((size, workload.num_features))
        ids = np.minimum((vocabulary * uniform**workload.id_exponent).astype(np.int64), vocabulary - 1)
        ids[:, :NUM_USER_FEATURES] = ids[0, :NUM_USER_FEATURES]
        queries.append(Query(dense=np.repeat(dense, size, axis=0), ids=ids))
    return queries
