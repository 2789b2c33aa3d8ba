"""`tfdlrm.fit` and `tfdlrm.load`: a model of the rows of a frame, and its scores for others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfdlrm.config import ANY_DATA, apply_overrides, load_config, sized
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.opening import BadRowsMode, frame_rows, from_frame
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.evaluation import evaluate_dataset
from tfdlrm.training.explanation import Explanation
from tfdlrm.training.prediction import SCORING_BATCH_SIZE, explainer_of, load_run, scored_batches
from tfdlrm.training.run import train
from tfdlrm.training.run_evaluation import refuse_unlabelled


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model and what it knows of its columns: raw rows in, probabilities out.

    Args:
        model: the Keras model.
        preprocessing: schema, statistics and vocabularies of its training rows.
        model_dir: the folder of its training run, for `tfdlrm evaluate`, `predict` and `export`.
    """

    model: DLRM
    preprocessing: Preprocessing
    model_dir: Path
    _traced: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def spec(self) -> FeatureSpec:
        """The columns, with what was learned of them."""
        return self.preprocessing.spec

    def predict(self, frame: Any, *, batch_size: int = SCORING_BATCH_SIZE) -> np.ndarray:
        """Probabilities, float32 `[rows]` (of several labels `[rows, labels]`), in the order of the frame.

        Args:
            frame: as for `fit`; the label columns may be missing, their cells empty, and columns in any order.
            batch_size: rows scored at once.

        Raises:
            ValueError: a column is missing or unknown, or a row cannot be used; names it.
        """
        rows = frame_rows(frame, self.preprocessing, empty_labels=True)
        batches = scored_batches(self.model, rows, batch_size, traced=self._traced)
        probabilities = np.concatenate([batch.probabilities for batch in batches])
        return probabilities[:, 0] if probabilities.shape[1] == 1 else probabilities

    def explain(self, frame: Any, *, batch_size: int = SCORING_BATCH_SIZE) -> Explanation:
        """What each column adds to the logit of each row: the logit less that of the row with the column at its mean
        of the training rows.

        Args:
            frame, batch_size: as for `predict`.

        Raises:
            ValueError: as of `predict`; the run keeps no background, as of an older version, and its data are gone.

        Example:
            >>> model.explain(frame).top(row=0)
            [('city', 1.25), ('price', -0.31), ...]
        """
        rows = frame_rows(frame, self.preprocessing, empty_labels=True)
        if "explainer" not in self._traced:
            self._traced["explainer"] = explainer_of(self.model, self.model_dir, self.preprocessing)
        explainer = self._traced["explainer"]
        batches = list(scored_batches(self.model, rows, batch_size, traced=self._traced, explainer=explainer))
        logits = np.concatenate([batch.logits for batch in batches])
        contributions = np.concatenate([batch.contributions for batch in batches if batch.contributions is not None])
        mean = explainer.mean_logit()
        if logits.shape[1] == 1:
            logits, contributions, mean = logits[:, 0], contributions[:, 0], mean[0]
        return Explanation(columns=explainer.columns, contributions=contributions, logits=logits, mean_logit=mean)

    def evaluate(self, frame: Any, *, batch_size: int = SCORING_BATCH_SIZE) -> dict[str, float]:
        """Exact metrics of a frame with labels: AUC, log loss, normalized entropy, calibration and others.

        Raises:
            ValueError: no labels; else as of `predict`.
        """
        dataset = frame_rows(frame, self.preprocessing)
        refuse_unlabelled(dataset, FRAME_NAME)
        return evaluate_dataset(self.model, dataset, batch_size=batch_size)


def fit(
    frame: Any,
    label: str | None = None,
    *,
    schema: FeatureSpec | None = None,
    positive: str | None = None,
    model: str | os.PathLike[str] = "dlrm",
    overrides: Sequence[str] = (),
    split: Literal["random", "time", "none"] = "random",
    train_fraction: float = 0.8,
    validation_fraction: float = 0.1,
    bad_rows: BadRowsMode = "error",
    model_dir: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> TrainedModel:
    """Trains a model on the rows of a frame.

    It is that of the best epoch by the validation part, or of the last one where that part has labels of one kind.

    Args:
        frame: a frame of polars or pandas (its index is left out), a table of pyarrow, or a mapping of columns.
        label: the column of labels, where the schema is to be proposed (`FeatureSpec.infer`).
        schema: the columns, where it is known.
        positive: which of the label's two values is 1; see `FeatureSpec.infer`.
        model: a preset for any columns, `dlrm` or `dcnv2`, whose batch size, epochs and top MLP go by the number of
            rows, or a config file: its model and training.
        overrides: such as `["train.epochs=3"]`.
        split, train_fraction, validation_fraction: see `tfdlrm.data.from_frame`; training ends early by the validation
            part.
        bad_rows: `error` raises at the first row that cannot be used, `quarantine` leaves such rows out.
        model_dir: a new folder for the run; None for one in the system's folder for temporary files.
        verbose: 1 shows progress and metrics.

    Raises:
        ValueError: both or neither of `label` and `schema`; a label without two values; a bad row; a config that does
            not fit.

    Example:
        >>> model = tfdlrm.fit(frame, label="click")
        >>> frame["score"] = model.predict(frame)
    """
    if (label is None) == (schema is None):
        raise ValueError("fit: give either label, and the schema is proposed, or schema, which names its labels.")
    spec = schema if schema is not None else FeatureSpec.infer(frame, str(label), positive=positive)
    given = load_config(model)
    splits = from_frame(
        frame,
        spec,
        split=split,
        train_fraction=train_fraction,
        validation_fraction=validation_fraction,
        seed=apply_overrides(given, overrides).train.seed,
        bad_rows=bad_rows,
    )
    config = apply_overrides(sized(given, splits.train.num_rows) if model in ANY_DATA else given, overrides)
    folder = Path(tempfile.mkdtemp(prefix="tfdlrm-")) if model_dir is None else Path(model_dir)
    result = train(config, folder, data=splits, verbose=verbose)
    return load(folder, "latest" if result.best is None else "best")


def load(model_dir: str | os.PathLike[str], checkpoint: str = "best") -> TrainedModel:
    """The model of a training run, by `fit` or `tfdlrm train`.

    Args:
        model_dir: of the run.
        checkpoint: `best`, `latest` or a checkpoint's name.

    Raises:
        FileNotFoundError: there is no run, or no such checkpoint; lists those there are.

    Example:
        >>> tfdlrm.load("runs/clicks").predict(frame)
    """
    model, _, preprocessing = load_run(model_dir, checkpoint)
    return TrainedModel(model=model, preprocessing=preprocessing, model_dir=Path(model_dir))
