"""From a `DataConfig` to datasets: the one function training, evaluation and prediction call for their rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfdlrm.checks import check_choice, quoted
from tfdlrm.config.data import DataConfig
from tfdlrm.data.dataset import Books, Dataset, InMemoryDataset
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.quarantine import BadRowError, Quarantine
from tfdlrm.data.raw_formats import default_spec, open_source
from tfdlrm.data.splits import Splits
from tfdlrm.schema import FeatureSpec

if TYPE_CHECKING:
    from tfdlrm.data.columns import Columns
    from tfdlrm.data.sources import RowSource

BadRowsMode = Literal["error", "quarantine"]


def open_dataset(
    config: DataConfig,
    *,
    bad_rows: BadRowsMode = "error",
    quarantine_dir: str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """The training, validation and test rows a configuration describes.

    `split: time` takes contiguous parts of the rows in the order of the file, which must be the order of time;
    MovieLens's ratings are sorted by it. Vocabularies and statistics come from the training part only, but for
    `split: criteo-kaggle` with no `oov` column: the reference's preprocessing builds its vocabularies on all rows.

    Args:
        config: format, paths, split and schema.
        bad_rows: `error` raises at the first bad row, `quarantine` sets bad rows aside and counts them.
        quarantine_dir: where `quarantine.tsv` is written; None only counts.
        preprocessing: of an earlier run, to encode the same way; None to fit.

    Raises:
        ValueError: the configuration lacks something, a bad row, or no usable row; file, line and column are named.
        FileNotFoundError, IsADirectoryError: a path is wrong.
        ImportError: polars is needed and not installed.

    Example:
        >>> splits = open_dataset(DataConfig(format="criteo", path="train.txt", split="criteo-kaggle"))
        >>> print(splits.books)
        45,840,617 rows read = 45,840,617 used + 0 set aside
    """
    if config.format == "synthetic":
        from tfdlrm.data.synthetic import open_synthetic

        return open_synthetic(config)
    if config.path is None:
        raise ValueError(
            f"DataConfig: path is missing, and format={quoted(config.format)} reads files. Give path (or --data)."
        )
    if config.format == "prepared":
        return _open_prepared(config, preprocessing)
    if config.split != "none" and (config.validation_path or config.test_path):
        raise ValueError(
            f"DataConfig: split={quoted(config.split)} divides path, and validation_path or "
            "test_path is given as well. "
            "Remove one of them: split: none keeps the files as the parts."
        )
    with contextlib.closing(Quarantine(bad_rows, quarantine_dir)) as quarantine:
        reader = _Reader(config, quarantine, preprocessing)
        return reader.splits(reader.file(config.path)[0])


def _open_prepared(config: DataConfig, preprocessing: Preprocessing | None) -> Splits:
    from tfdlrm.data.prepared import open_prepared

    given = {
        "split": config.split != "none",
        "schema": config.schema is not None,
        "id_modulo": config.id_modulo is not None,
        "validation_path": config.validation_path is not None,
        "test_path": config.test_path is not None,
    }
    for name, is_given in given.items():
        if is_given:
            raise ValueError(
                f"DataConfig: {name}={quoted(getattr(config, name))} has no meaning with "
                "format='prepared': the folder has "
                "its parts and its schema. Remove it, or give it to tfdlrm data prepare."
            )
    splits = open_prepared(config.path or "", config.max_rows)
    if preprocessing is not None and preprocessing.spec != splits.spec:
        raise ValueError(
            f"{config.path}: prepared with another schema or other vocabularies than the model was trained on. Prepare "
            "the rows with --vocabularies of the training data."
        )
    return splits


def open_rows(
    config: DataConfig,
    path: str | os.PathLike[str],
    preprocessing: Preprocessing,
    *,
    bad_rows: BadRowsMode = "error",
    quarantine_dir: str | os.PathLike[str] | None = None,
    empty_labels: bool = False,
) -> Dataset:
    """All rows of a new file, encoded as the training rows were; for evaluation and prediction.

    The label columns may be missing; labels are then NaN.

    Args:
        config: the format of the file; its other fields are not used.
        path: the file (the folder, for MovieLens).
        preprocessing: of the training run.
        bad_rows, quarantine_dir: as for `open_dataset`.
        empty_labels: an empty cell is a NaN label, and no bad row; for prediction.
    """
    if config.format == "prepared":
        from tfdlrm.data.prepared import open_part

        return open_part(path, preprocessing)
    with contextlib.closing(Quarantine(bad_rows, quarantine_dir)) as quarantine:
        reader = _Reader(config, quarantine, preprocessing)
        return reader.all_rows(*reader.file(path, allow_unlabelled=True), empty_labels=empty_labels)


def from_frame(
    frame: Any,
    spec: FeatureSpec,
    *,
    split: Literal["random", "time", "none"] = "random",
    train_fraction: float = 0.8,
    validation_fraction: float = 0.1,
    seed: int = 0,
    bad_rows: BadRowsMode = "error",
    quarantine_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """The training, validation and test rows of a frame; the key `row_id` is a row's number in it.

    Args:
        frame: a frame of polars or pandas (its index is left out), a table of pyarrow, or a mapping of columns.
        spec: the columns, as from `FeatureSpec.infer`.
        split: `random`; `time`, contiguous parts in the order of the frame; `none`, all rows train.
        train_fraction, validation_fraction: the rest is the test part.
        seed: of `random`.
        bad_rows, quarantine_dir: as for `open_dataset`.

    Raises:
        ValueError: a column is missing or unknown, a bad row, or no usable row.

    Example:
        >>> splits = from_frame(frame, FeatureSpec.infer(frame, label="click"))
    """
    from tfdlrm.data.typed import frame_source

    check_choice("from_frame", "split", split, ("random", "time", "none"))
    config = DataConfig(
        format="csv",
        schema=spec,
        split="none" if split == "none" else "time",  # rows of a random split come in a random order
        train_fraction=train_fraction,
        validation_fraction=validation_fraction,
    )
    source, _ = frame_source(frame, spec, seed=seed if split == "random" else None)
    with contextlib.closing(Quarantine(bad_rows, quarantine_dir)) as quarantine:
        return _Reader(config, quarantine).splits(source)


def frame_rows(frame: Any, preprocessing: Preprocessing, *, empty_labels: bool = False) -> Dataset:
    """All rows of a frame in its order, encoded as the training rows were; the label columns may be missing.

    Args:
        frame: as for `from_frame`.
        preprocessing: of the training run.
        empty_labels: see `open_rows`.

    Raises:
        ValueError: a column is missing or unknown, or a row cannot be used: none is left out.
    """
    from tfdlrm.data.typed import frame_source

    source, labelled = frame_source(frame, preprocessing.spec, allow_unlabelled=True)
    reader = _Reader(DataConfig(format="csv"), Quarantine(), preprocessing)
    try:
        return reader.all_rows(source, labelled, empty_labels=empty_labels)
    except BadRowError as error:
        raise ValueError(error.row.message(can_be_set_aside=False)) from error


class _Reader:
    """Reads sources by one schema, and prepares their rows in memory."""

    def __init__(self, config: DataConfig, quarantine: Quarantine, preprocessing: Preprocessing | None = None) -> None:
        self._config, self._quarantine, self._preprocessing = config, quarantine, preprocessing
        self._spec = preprocessing.spec if preprocessing else _spec_of(config)
        self._rows_read = 0

    def file(self, path: str | os.PathLike[str], *, allow_unlabelled: bool = False) -> tuple[RowSource, bool]:
        return open_source(self._config.format, path, self._spec, self._quarantine, allow_unlabelled=allow_unlabelled)

    def splits(self, source: RowSource) -> Splits:
        config = self._config
        parts = dict(self._parts(source, config.split))
        for name, path in (("validation", config.validation_path), ("test", config.test_path)):
            if path is not None:
                parts[name] = self._parts(self.file(path)[0])["train"]
        assert self._preprocessing is not None
        datasets = {name: InMemoryDataset(self._preprocessing.spec, columns) for name, columns in parts.items()}
        if "train" not in datasets:
            raise ValueError(f"{source.file}: the training part has no row. Give more rows or a larger train_fraction.")
        return Splits(
            train=datasets["train"],
            validation=datasets.get("validation"),
            test=datasets.get("test"),
            preprocessing=self._preprocessing,
            books=self._books(sum(dataset.num_rows for dataset in datasets.values())),
            bad_rows=tuple(self._quarantine.examples),
        )

    def all_rows(self, source: RowSource, labelled: bool, *, empty_labels: bool) -> InMemoryDataset:
        """All rows of a source, as one dataset with its books."""
        columns = self._parts(source, labelled=labelled, empty_labels=empty_labels)["train"]
        assert self._preprocessing is not None
        return InMemoryDataset(self._preprocessing.spec, columns, self._books(columns.num_rows))

    def _parts(
        self,
        source: RowSource,
        split: Literal["none", "criteo-kaggle", "time"] = "none",
        *,
        labelled: bool = True,
        empty_labels: bool = False,
    ) -> Mapping[str, Columns]:
        """The parts of a source; the first one that is read is what the others are encoded by."""
        from tfdlrm.data.prepare.config import PrepareConfig
        from tfdlrm.data.prepare.in_memory import prepare_in_memory

        config, given = self._config, self._preprocessing
        read = prepare_in_memory(
            PrepareConfig(
                format="criteo-kaggle" if config.format == "criteo" else config.format,  # type: ignore[arg-type]
                split=split,
                train_fraction=config.train_fraction,
                validation_fraction=config.validation_fraction,
                id_modulo=given.id_modulo if given else config.id_modulo,
            ),
            source,
            self._spec,
            self._quarantine,
            given=given,
            labelled=labelled,
            empty_labels=empty_labels,
            max_rows=config.max_rows,
        )
        self._preprocessing, self._spec = read.preprocessing, read.preprocessing.spec
        self._rows_read += read.rows_read
        return read.parts

    def _books(self, used: int) -> Books:
        return Books(read=self._rows_read, used=used, set_aside=self._quarantine.count)


def _spec_of(config: DataConfig) -> FeatureSpec:
    if config.schema is not None:
        return config.schema
    return default_spec(config.format, Path(config.path or ""), "data.schema")
