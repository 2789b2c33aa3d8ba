"""ScoredRows: the labels and scores of every row of a dataset, and a sample of whole rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.batching import to_columns
from tfdlrm.data.columns import Columns, concatenate
from tfdlrm.data.dataset import Dataset, some_of
from tfdlrm.data.synthetic import TEACHER_PROBABILITY
from tfdlrm.metrics.evaluation import probability_of
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.evaluation import Scorer


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Rows of one task with their scores.

    Args:
        spec: the columns.
        task: number of the label.
        labels: bool [N].
        logits: float32 [N].
        numbers: int64 [S], which rows are in the sample, ascending.
        sample: the rows of the sample, keys included.
        best: float64 [N], the probabilities that labels were drawn with, where rows are generated; else None.
    """

    spec: FeatureSpec
    task: int
    labels: np.ndarray
    logits: np.ndarray
    numbers: np.ndarray
    sample: Columns
    best: np.ndarray | None

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def is_whole(self) -> bool:
        """Whether every row is in the sample."""
        return len(self.numbers) == len(self.labels)

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [N]."""
        return probability_of(self.logits)

    @property
    def sample_labels(self) -> np.ndarray:
        """bool [S]."""
        return self.labels[self.numbers]

    @property
    def sample_logits(self) -> np.ndarray:
        """float32 [S]."""
        return self.logits[self.numbers]


def score_rows(
    model: keras.Model,
    dataset: Dataset,
    *,
    batch_size: int,
    task: int = 0,
    sample_rows: int,
    seed: int = 0,
    traced: dict[str, Any] | None = None,
) -> ScoredRows:
    """Scores every row once, and keeps some of them whole.

    Args:
        model: gives logits `[B, T]`.
        dataset: labelled rows.
        batch_size: rows at once.
        task: number of the label.
        sample_rows: rows kept whole, drawn at random without replacement; all, where there are no more.
        seed: of the draw.
        traced: see `Scorer`.

    Raises:
        ValueError: a score is NaN, or a label missing; names the row.
    """
    num_rows = dataset.num_rows
    numbers = some_of(num_rows, sample_rows, seed)
    labels, logits = np.empty(num_rows, bool), np.empty(num_rows, np.float32)
    best: list[np.ndarray] = []
    pieces, start = [], 0
    batches = dataset.batches(batch_size, with_keys=True)
    for (features, given, keys), found in Scorer(model, batches, traced).scored():
        stop = start + len(found)
        own = given.numpy()
        _check(dataset.spec.labels[task], own[:, task], found[:, task], start)
        labels[start:stop], logits[start:stop] = own[:, task] > 0, found[:, task]
        low, high = np.searchsorted(numbers, [start, stop])
        plain = {name: values.numpy() for name, values in keys.items()}
        if TEACHER_PROBABILITY in plain and task == 0:
            best.append(plain[TEACHER_PROBABILITY].astype(np.float64))
        if high > low:
            columns = to_columns(dataset.spec, features, own, plain)
            pieces.append(columns if high - low == stop - start else columns.take(numbers[low:high] - start))
        start = stop
    return ScoredRows(
        spec=dataset.spec,
        task=task,
        labels=labels[:start],
        logits=logits[:start],
        numbers=numbers,
        sample=concatenate(pieces),
        best=np.concatenate(best) if best else None,
    )


def _check(label: str, labels: np.ndarray, logits: np.ndarray, start: int) -> None:
    for values, what in (
        (labels, "no label. Give labelled rows"),
        (logits, "the score NaN. Check the model: a weight may be NaN, as after training that diverged"),
    ):
        wrong = np.flatnonzero(np.isnan(values))
        if len(wrong):
            raise ValueError(f"row {start + wrong[0]} of the data (label {quoted(label)}) has {what}.")
