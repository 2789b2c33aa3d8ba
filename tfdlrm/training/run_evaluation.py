"""Evaluation of a training run: exact metrics of its model, on a part of its own data or on another file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.config import ExperimentConfig
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.data.opening import BadRowsMode, frame_rows, open_dataset
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.unknown_ids import jumps
from tfdlrm.training.evaluation import Evaluator
from tfdlrm.training.prediction import SCORING_BATCH_SIZE, load_run, open_file, validation_unknown_ids

PARTS = ("test", "validation", "train")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate_run` found.

    Args:
        metrics: as from `Evaluator`.
        rows_of: which rows: `test part`, or the file.
        books: rows read = used + set aside, of all files that were read for them.
        unknown_ids: columns with more unknown ids than the validation part had in training: (share, share there).
    """

    metrics: dict[str, float]
    rows_of: str
    books: Books
    unknown_ids: dict[str, tuple[float, float]]


def evaluate_run(
    model_dir: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    part: str | None = None,
    checkpoint: str = "best",
    data_format: str | None = None,
    bad_rows: BadRowsMode | None = None,
    batch_size: int = SCORING_BATCH_SIZE,
    group_by: str | None = None,
) -> Evaluation:
    """Exact metrics of a trained model: AUC (ties count half), log loss, normalized entropy, calibration and others.

    Args:
        model_dir: of the training run.
        data: a file of labelled rows; None for a part of the run's data.
        part: `test`, `validation` or `train`; default the first of them that there is. Not together with `data`.
        checkpoint: `best`, `latest` or a checkpoint's name.
        data_format: of `data`; default by its suffix, else that of the training data.
        bad_rows: default as in training; with `quarantine` they are counted.
        batch_size: rows scored at once.
        group_by: key column of the grouped AUC; default that of the run.

    Raises:
        ValueError, OSError: of the model's folder or of the data; each named.

    Example:
        >>> evaluate_run("runs/first").metrics["log_loss"]
        0.6174
    """
    model, config, preprocessing = load_run(model_dir, checkpoint)
    dataset, rows_of, books = labelled_rows(
        config, preprocessing, data=data, part=part, data_format=data_format, bad_rows=bad_rows
    )
    evaluator = Evaluator(model, dataset, batch_size=batch_size, group_by=group_by or config.train.group_by)
    metrics = evaluator.metrics()
    assert metrics is not None
    risen = jumps(evaluator.unknown_ids, validation_unknown_ids(model_dir, checkpoint))
    return Evaluation(metrics=metrics, rows_of=rows_of, books=books, unknown_ids=risen)


def labelled_rows(
    config: ExperimentConfig,
    preprocessing: Preprocessing,
    *,
    data: Any = None,
    part: str | None = None,
    data_format: str | None = None,
    bad_rows: BadRowsMode | None = None,
) -> tuple[Dataset, str, Books]:
    """Labelled rows for a trained model: of a file or a frame, or of a part of the run's own data.

    Args:
        config, preprocessing: of the run.
        data: a file, or a frame as for `tfdlrm.fit`; None for a part of the run's data.
        part, data_format, bad_rows: see `evaluate_run`.

    Returns:
        The rows, what they are called, and the books of all files read for them.
    """
    bad_rows = bad_rows or config.train.bad_rows
    if data is not None and part is not None:
        shown = quoted(str(data)) if isinstance(data, (str, os.PathLike)) else "a frame"
        raise ValueError(
            f"part={quoted(part)} names a part of the run's own data, and data={shown} is given. Drop one."
        )
    if data is None:
        return _part(config, preprocessing, bad_rows, part)
    if isinstance(data, (str, os.PathLike)):
        dataset, name = open_file(config, data, preprocessing, data_format, bad_rows), str(data)
    else:
        dataset, name = frame_rows(data, preprocessing), FRAME_NAME
    refuse_unlabelled(dataset, name)
    return dataset, name, dataset.books


def _part(
    config: ExperimentConfig, preprocessing: Preprocessing, bad_rows: BadRowsMode, part: str | None
) -> tuple[Dataset, str, Books]:
    splits = open_dataset(config.data, bad_rows=bad_rows, preprocessing=preprocessing)
    name = part or next(name for name in PARTS if name in splits.parts)
    if name not in splits.parts:
        raise ValueError(
            f"the data of this run have no {name} part. There are: {', '.join(splits.parts)}. Or give --data."
        )
    return splits.parts[name], f"{name} part", splits.books


def refuse_unlabelled(dataset: Dataset, file: str) -> None:
    """A file has labels for all of its rows or for none, so that one row tells."""
    _, labels = next(iter(dataset.batches(1)))
    if np.isnan(labels.numpy()).any():
        raise ValueError(
            f"{file}: no column of labels ({', '.join(dataset.spec.labels)}), and metrics need them. Add it; "
            "`tfdlrm predict` scores rows without labels."
        )
