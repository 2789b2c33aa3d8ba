"""Prediction: the scores of every row of a dataset, in its order and beside its keys, as arrays or as a file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.config import DataConfig, ExperimentConfig
from tfdlrm.data.columns import Columns
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.data.opening import BadRowsMode, open_dataset, open_rows
from tfdlrm.data.prepared_folders import part_folders
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.raw_formats import data_at
from tfdlrm.data.unknown_ids import UnknownIds, jumps
from tfdlrm.files import partial_folder
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import ROW_ID, FeatureSpec
from tfdlrm.training.background import background_of, load_background
from tfdlrm.training.evaluation import Scorer
from tfdlrm.training.explanation import Explainer
from tfdlrm.training.model_dir import ModelDir

if TYPE_CHECKING:
    import polars as pl

# Rows scored at once where nobody says otherwise: enough to keep the matrix products busy, and 27 vectors of width
# 128 of each still take no more than 60 MB.
SCORING_BATCH_SIZE = 4096

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """Rows with their scores.

    Args:
        labels: float32 [B, T]; NaN where there are none.
        logits: float32 [B, T].
        keys: key column (`row_id` among them) -> [B].
        contributions: float32 [B, T, F], see `Explainer`; None where nobody explains.
    """

    labels: np.ndarray
    logits: np.ndarray
    keys: Mapping[str, np.ndarray]
    contributions: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [B, T]."""
        return tf.sigmoid(self.logits).numpy()


def scored_batches(
    model: keras.Model,
    dataset: Dataset,
    batch_size: int = SCORING_BATCH_SIZE,
    *,
    unknown: UnknownIds | None = None,
    traced: MutableMapping[str, Any] | None = None,
    explainer: Explainer | None = None,
) -> Iterator[ScoredBatch]:
    """Scores a dataset, every row once and in order.

    Args:
        model: gives logits `[B, T]`.
        dataset: the rows, labelled or not.
        batch_size: rows at once; scores do not depend on it beyond float32 rounding.
        unknown: counts the unknown ids of the rows.
        traced: see `Scorer`.
        explainer: tells the contributions of columns as well.

    Raises:
        ValueError: batch_size is below 1.

    Example:
        >>> logits = np.concatenate([batch.logits for batch in scored_batches(model, splits.test)])
    """
    batches = dataset.batches(batch_size, with_keys=True)
    for (features, labels, keys), logits in Scorer(model, batches, traced).scored():
        if unknown is not None:
            unknown.update(features)
        yield ScoredBatch(
            labels=labels.numpy(),
            logits=logits,
            keys={name: values.numpy() for name, values in keys.items()},
            contributions=None if explainer is None else explainer.contributions(features),
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What `predict_file` did.

    Args:
        output: the file written.
        books: rows read = rows scored + rows set aside.
        labelled: whether the file has labels.
        rows_of: what was scored: the data, or which parts of prepared data.
        quarantine: the folder with the rows that were set aside; None where there are none.
        unknown_ids: columns with more unknown ids than the validation part had in training: (share, share there).
    """

    output: Path
    books: Books
    labelled: bool
    rows_of: str
    quarantine: Path | None
    unknown_ids: dict[str, tuple[float, float]]


def predict_file(
    model_dir: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    data_format: str | None = None,
    part: str | None = None,
    bad_rows: BadRowsMode | None = None,
    batch_size: int = SCORING_BATCH_SIZE,
    explain: bool = False,
) -> Prediction:
    """Scores the rows of a file with a trained model and writes them to another.

    The output has a line a row, in the order of the input (MovieLens: of time): `row_id` (the row's number in the
    input, from 0) and the schema's other keys, the labels where there are any, `probability` and `logit`
    (`probability_<task>` and `logit_<task>` where the model has several tasks); with `explain` also
    `contribution_<column>` of every dense and categorical column, see `training.explanation`. It appears whole or not
    at all.

    Args:
        model_dir: of the training run.
        data: the rows, with or without labels.
        output: `.csv`, `.tsv` or `.parquet`; a file that is there is replaced.
        checkpoint: `best`, `latest` or a checkpoint's name.
        data_format: of `data`; default by its name and first bytes, else that of the training data.
        part: of prepared data: `train`, `validation`, `test` or `all`; default the test part, or the only one.
        bad_rows: default as in training. With `quarantine`, bad rows are written to the folder `<output>.bad-rows`.
        batch_size: rows scored at once.
        explain: write the columns' contributions as well.

    Raises:
        ValueError, OSError: of the model's folder, of a row of the data, or of the output; each named.

    Example:
        >>> print(predict_file("runs/first", "rows.csv", "scores.csv").books)
        1,000 rows read = 1,000 used + 0 set aside
    """
    output = Path(output)
    _check_output(output, Path(data))
    model, config, preprocessing = load_run(model_dir, checkpoint)
    aside = output.parent / f"{output.name}.bad-rows"
    bad_rows = bad_rows or config.train.bad_rows
    sources = part_folders(data, part)
    datasets = [
        open_file(config, source, preprocessing, data_format, bad_rows, aside, empty_labels=True) for source in sources
    ]
    spec = datasets[0].spec
    unknown = UnknownIds(spec)
    explainer = explainer_of(model, model_dir, preprocessing, config) if explain else None
    scored = (scored_batches(model, dataset, batch_size, unknown=unknown, explainer=explainer) for dataset in datasets)
    frames, labelled = _frames(itertools.chain.from_iterable(scored), spec)
    with partial_folder(output) as folder:
        num_scored = _write(folder / output.name, output.suffix, frames)
        books = _sum_of([dataset.books for dataset in datasets])
        if num_scored != books.used:
            raise RuntimeError(f"{data}: {num_scored} rows were scored and {books.used} are in use. This is a defect.")
        os.replace(folder / output.name, output)
    return Prediction(
        output=output,
        books=books,
        labelled=labelled,
        rows_of=", ".join(map(str, sources)),
        quarantine=aside if books.set_aside else None,
        unknown_ids=jumps(unknown.shares(), validation_unknown_ids(model_dir, checkpoint)),
    )


def load_run(
    model_dir: str | os.PathLike[str], checkpoint: str = "best"
) -> tuple[DLRM, ExperimentConfig, Preprocessing]:
    """What scoring needs of a training run: the model with a checkpoint's weights, the config, the preprocessing.

    Raises:
        FileNotFoundError: there is no run, or no such checkpoint; lists those there are.
    """
    folder = ModelDir(model_dir)
    folder.load_config()  # says that there is no run, where otherwise one of its files would be missed
    model, config, _ = folder.load_model(checkpoint, weights_only=True)
    return model, config, Preprocessing.load(folder.preprocessing)


def explainer_of(
    model: DLRM,
    model_dir: str | os.PathLike[str],
    preprocessing: Preprocessing,
    config: ExperimentConfig | None = None,
) -> Explainer:
    """What explains rows of a run's model, by the background that the run keeps.

    Args:
        model, preprocessing: of the run.
        model_dir: its folder.
        config: of the run, whose training data are read where no background is kept: older versions kept none.

    Raises:
        ValueError, OSError: the background is damaged, or there are neither background nor training data.
    """
    background = run_background(model_dir, preprocessing, config)
    return Explainer(model, preprocessing.spec, background)


def run_background(
    model_dir: str | os.PathLike[str], preprocessing: Preprocessing, config: ExperimentConfig | None = None
) -> Columns:
    """See `explainer_of`."""
    folder = ModelDir(model_dir)
    kept = load_background(folder.background_file, preprocessing.spec)
    if kept is not None:
        return kept
    try:
        data = (config or folder.load_config()).data
        return background_of(open_dataset(data, preprocessing=preprocessing).train)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder.background_file}: is not there, and the run's training data cannot be read instead: {error}"
        ) from error


def validation_unknown_ids(model_dir: str | os.PathLike[str], checkpoint: str = "best") -> dict[str, float]:
    """Share of unknown ids of the validation part, by column, as it was when a checkpoint was written."""
    folder = ModelDir(model_dir)
    return folder.checkpoints().read_state(folder.checkpoint_name(checkpoint)).unknown_ids


def open_file(
    config: ExperimentConfig,
    data: str | os.PathLike[str],
    preprocessing: Preprocessing,
    data_format: str | None = None,
    bad_rows: BadRowsMode = "error",
    quarantine_dir: Path | None = None,
    *,
    empty_labels: bool = False,
) -> Dataset:
    """All rows of a file, encoded as a run's training rows were; arguments as in `predict_file` and `open_rows`.

    Raises:
        FileNotFoundError, ValueError: no such file, a folder of no known kind, or a bad row.
    """
    rows = data_at(config.data, data) if data_format is None else DataConfig.from_dict({"format": data_format})
    return open_rows(
        rows, data, preprocessing, bad_rows=bad_rows, quarantine_dir=quarantine_dir, empty_labels=empty_labels
    )


def _sum_of(books: Sequence[Books]) -> Books:
    return Books(
        read=sum(one.read for one in books),
        used=sum(one.used for one in books),
        set_aside=sum(one.set_aside for one in books),
    )


def _check_output(output: Path, data: Path) -> None:
    if output.suffix not in (*SEPARATORS, PARQUET):
        known = ", ".join((*SEPARATORS, PARQUET))
        raise ValueError(
            f"{output}: {output.suffix or 'no suffix'} is not a format of scores. Name it one of: {known}."
        )
    if output.is_dir():
        raise IsADirectoryError(f"{output}: a folder, where the file of scores is to be written. Give a file.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: the folder {output.parent} does not exist. Make it, or give another one.")
    if output.exists() and data.exists() and output.samefile(data):
        raise ValueError(f"{output}: the scores would replace the data. Give another output.")


def _frames(batches: Iterator[ScoredBatch], spec: FeatureSpec) -> tuple[Iterator[pl.DataFrame], bool]:
    """A frame a batch, and whether rows have labels: a file has them for all rows or for none."""
    first = next(batches)
    labelled = not np.isnan(first.labels).all()

    def frames() -> Iterator[pl.DataFrame]:
        yield score_frame(first, spec, labelled=labelled)
        for batch in batches:
            yield score_frame(batch, spec, labelled=labelled)

    return frames(), labelled


def score_frame(batch: ScoredBatch, spec: FeatureSpec, *, labelled: bool) -> pl.DataFrame:
    """The lines of the file of scores: `row_id`, keys, labels if there are any, probabilities, logits.

    Raises:
        ValueError: two columns would have one name.
    """
    from tfdlrm.data.polars_extra import pl

    tasks = spec.labels
    keys = dict.fromkeys([ROW_ID, *spec.keys])
    columns: list[tuple[str, np.ndarray | list[str]]] = [(name, _texts(batch.keys[name])) for name in keys]
    if labelled:
        columns += [(name, batch.labels[:, task]) for task, name in enumerate(tasks)]
    for kind, scores in (("probability", batch.probabilities), ("logit", batch.logits)):
        columns += [(kind if len(tasks) == 1 else f"{kind}_{name}", scores[:, k]) for k, name in enumerate(tasks)]
    if batch.contributions is not None:
        for k, task in enumerate(tasks):
            kind = "contribution" if len(tasks) == 1 else f"contribution_{task}"
            columns += [(f"{kind}_{name}", batch.contributions[:, k, f]) for f, name in enumerate(spec.input_names)]
    frame: dict[str, np.ndarray | list[str]] = {}
    for name, values in columns:
        if name in frame:
            raise ValueError(
                f"the file of scores would have two columns {quoted(name)}. Rename the key or label {quoted(name)}."
            )
        frame[name] = values
    # of labels NaN is an empty cell
    return pl.DataFrame(frame).with_columns(pl.col(tasks).fill_nan(None)) if labelled else pl.DataFrame(frame)


def _texts(values: np.ndarray) -> np.ndarray | list[str]:
    """TensorFlow hands strings over as bytes."""
    return values if values.dtype.kind != "O" else [value.decode("utf-8", "backslashreplace") for value in values]


def _write(file: Path, suffix: str, frames: Iterator[pl.DataFrame]) -> int:
    """Writes all frames and returns the number of rows."""
    from tfdlrm.data.polars_extra import pl

    if suffix == PARQUET:
        table = pl.concat(list(frames))
        table.write_parquet(file)
        return table.height
    num_rows = 0
    with file.open("wb") as stream:
        for frame in frames:
            frame.write_csv(stream, include_header=num_rows == 0, separator=SEPARATORS[suffix])
            num_rows += frame.height
    return num_rows
