"""PrepareConfig: what `tfdlrm data prepare` does to raw rows; which files hold them, and what their columns are."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.data.prepared_folders import is_prepared
from tfdlrm.data.preprocessing import WITH_VOCABULARY
from tfdlrm.data.raw_formats import default_spec, guess_format, is_movielens
from tfdlrm.records import Reader, Record, optional
from tfdlrm.schema import SCHEMA_FILE, FeatureSpec

RawFormat = Literal["criteo-kaggle", "criteo-terabyte", "avazu", "csv", "parquet", "arrow", "movielens"]
PrepareSplit = Literal["none", "criteo-kaggle", "criteo-terabyte", "time", "time-column", "hash", "random"]
VocabularyOrder = Literal["first-appearance", "frequency"]
OutputFormat = Literal["arrow", "parquet", "tfrecord"]

_SPLITS_BY_COLUMN = ("time-column", "hash")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Record):
    """How raw rows become the training format.

    Args:
        format: how the raw rows are written.
        schema: the columns; None for the format's own, or for `schema.yaml` beside the first source.
        split: `none`, all rows train; `criteo-kaggle`, seven equal days of which the last is test and validation;
            `criteo-terabyte`, the last file is; `time`, contiguous parts in the order of the rows; `time-column`, the
            same in the order of the values of `split_column`; `hash`, by a hash of the value of `split_column` (rows
            with one value stay together); `random`, by row and `seed`.
        train_fraction, validation_fraction: of the last four; the rest is the test part.
        split_column: a key column of the schema.
        seed: of `random`, `hash` and `keep_negatives`.
        vocabulary_order: ids by first appearance (the reference's) or from the most frequent value to the rarest.
        min_count: rarer values get the out-of-vocabulary row; above 1, columns need `id_policy: oov`.
        vocabularies: a folder of an earlier preparation; its values keep their ids.
        extend: values that those vocabularies do not hold are added behind them.
        oov: every column with a vocabulary gets an out-of-vocabulary row.
        id_modulo: integer and hex ids are taken modulo this first.
        keep_negatives: share of the training rows with label 0 that is kept.
        multi_hot: `mlperf-dcnv2` makes MLPerf's bags from Criteo's single ids.
        output: the files' format.

    Raises:
        ValueError: a value is not valid, or an option has no meaning with another one.
    """

    format: RawFormat
    schema: FeatureSpec | None = None
    split: PrepareSplit = "none"
    train_fraction: float = 0.8
    validation_fraction: float = 0.1
    split_column: str | None = None
    seed: int = 0
    vocabulary_order: VocabularyOrder = "first-appearance"
    min_count: int = 1
    vocabularies: str | None = None
    extend: bool = False
    oov: bool = False
    id_modulo: int | None = None
    keep_negatives: float = 1.0
    multi_hot: Literal["mlperf-dcnv2"] | None = None
    output: OutputFormat = "arrow"

    readers: ClassVar[Mapping[str, Reader]] = {"schema": optional(FeatureSpec.from_dict)}

    def __post_init__(self) -> None:
        owner, maybe = "PrepareConfig", checks.check_optional
        for name, kind in (
            ("format", RawFormat),
            ("split", PrepareSplit),
            ("vocabulary_order", VocabularyOrder),
            ("output", OutputFormat),
        ):
            checks.check_choice(owner, name, getattr(self, name), get_args(kind))
        for name in ("split_column", "vocabularies"):
            maybe(checks.check_name, owner, name, getattr(self, name))
        for name in ("extend", "oov"):
            checks.check_flag(owner, name, getattr(self, name))
        maybe(checks.check_instance, owner, "schema", self.schema, kind=FeatureSpec)
        if self.multi_hot is not None:
            checks.check_choice(owner, "multi_hot", self.multi_hot, ("mlperf-dcnv2",))
        number, integer = checks.check_number, checks.check_integer
        self._set(
            train_fraction=number(owner, "train_fraction", self.train_fraction, above=0.0, maximum=1.0),
            validation_fraction=number(owner, "validation_fraction", self.validation_fraction, minimum=0.0, below=1.0),
            keep_negatives=number(owner, "keep_negatives", self.keep_negatives, above=0.0, maximum=1.0),
            seed=integer(owner, "seed", self.seed, minimum=0),
            min_count=integer(owner, "min_count", self.min_count, minimum=1),
            id_modulo=maybe(integer, owner, "id_modulo", self.id_modulo, minimum=1),
        )
        self._check_combinations(owner)

    def _check_combinations(self, owner: str) -> None:
        if self.train_fraction + self.validation_fraction > 1.0 + 1e-9:
            raise ValueError(
                f"{owner}: train_fraction={self.train_fraction} and validation_fraction={self.validation_fraction} "
                "add up to more than 1. Lower one."
            )
        if (self.split in _SPLITS_BY_COLUMN) != (self.split_column is not None):
            raise ValueError(
                f"{owner}: split={quoted(self.split)} and split_column={quoted(self.split_column)} do not fit. Splits "
                f"{' and '.join(_SPLITS_BY_COLUMN)} go by a key column of the schema; the others need none."
            )
        if self.extend and self.vocabularies is None:
            raise ValueError(
                f"{owner}: extend has no meaning without vocabularies. Give the earlier folder, or drop it."
            )
        if self.vocabularies is not None and self.vocabulary_order == "frequency" and not self.extend:
            raise ValueError(
                f"{owner}: vocabulary_order='frequency' has no meaning with "
                f"vocabularies={quoted(self.vocabularies)}: their "
                "ids are given. Remove it, or add extend for the values that come behind them."
            )


def find_files(sources: Sequence[str | os.PathLike[str]], what: str = "a file of raw rows") -> list[Path]:
    """The files that sources name: files, folders (their files, not hidden ones) and glob patterns.

    The files of a folder or pattern come in natural order: `day_2` before `day_10`.

    Raises:
        FileNotFoundError: a source names nothing.
        ValueError: a file is named twice.
    """
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith((".", "_"))]
            found = [entry for entry in found if entry.name != SCHEMA_FILE]
        elif path.exists() or not glob.has_magic(str(source)):
            found = [path]
        else:
            found = [Path(name) for name in glob.glob(str(source), recursive=True) if os.path.isfile(name)]
        if not found:
            raise FileNotFoundError(f"{source}: names no file ({what} is expected). Give files, a folder or a pattern.")
        files.extend(sorted(found, key=_natural))
    seen: dict[Path, Path] = {}
    for file in files:
        if not str(file).isprintable():
            raise ValueError(f"{quoted(str(file))}: a name that is not UTF-8, or not printable. Rename the file.")
        real = file.resolve()
        if real in seen:
            raise ValueError(f"{file}: is given twice (as {seen[real]} too): its rows would be doubled. Name it once.")
        seen[real] = file
    return files


def first_source(sources: Sequence[str | os.PathLike[str]]) -> Path:
    """What tells the format of sources: the first file, or the folder of data that is one as a whole.

    Raises:
        FileNotFoundError, ValueError: see `find_files`.
    """
    first = Path(sources[0])
    return first if is_movielens(first) or is_prepared(first) else find_files(sources)[0]


def guess_raw_format(sources: Sequence[str | os.PathLike[str]], schema: FeatureSpec | None) -> RawFormat:
    """The format of the first file that sources name; see `guess_format`.

    Raises:
        FileNotFoundError: a source names nothing.
        ValueError: it is prepared data, or Criteo's, of which there are two kinds.
    """
    found, why = guess_format(first_source(sources))
    if found == "criteo" and schema is not None and schema.raw.columns:
        return "csv"
    if found not in get_args(RawFormat):
        formats = ", ".join(get_args(RawFormat))
        raise ValueError(f"{sources[0]}: looks like {found} ({why}). Give --format, one of: {formats}.")
    return cast("RawFormat", found)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in re.split(r"(\d+)", str(path)) if piece]


def spec_of(config: PrepareConfig, files: Sequence[Path]) -> FeatureSpec:
    """The columns of the raw rows.

    Raises:
        ValueError: the format does not tell them, and no schema is given; or options ask for what they do not have.
    """
    spec = config.schema or default_spec(config.format, files[0], "--schema FILE")
    if config.oov:
        columns = [
            replace(column, id_policy="oov") if column.encoding in WITH_VOCABULARY else column
            for column in spec.categorical
        ]
        spec = replace(spec, categorical=tuple(columns))
    if config.min_count > 1:
        without = [c.name for c in spec.categorical if c.encoding in WITH_VOCABULARY and c.id_policy != "oov"]
        if without:
            raise ValueError(
                f"min_count={config.min_count}: column {quoted(without[0])} has no "
                "out-of-vocabulary row for rarer values. "
                "Set id_policy: oov for it, or give --oov for all."
            )
    if config.split_column is not None and config.split_column not in spec.keys:
        keys = ", ".join(spec.keys) or "none"
        raise ValueError(
            f"split_column={quoted(config.split_column)} is not a key column of the schema (keys: "
            f"{keys}). Add it to keys."
        )
    return spec
