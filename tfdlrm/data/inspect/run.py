"""inspect_data: one pass over a dataset, and the report of what it holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.data.inspect.blocks import InspectBlock, InspectInput
from tfdlrm.data.inspect.dense_stats import MAX_DENSE_DISTINCT, DenseTally, RowSample, dense_stats
from tfdlrm.data.inspect.findings import (
    dense_bins,
    dense_leak,
    find,
    id_bins,
    population_stability,
    table_leak,
    unseen_share,
)
from tfdlrm.data.inspect.id_stats import CountTable, IdTally
from tfdlrm.data.inspect.label_rates import MAX_DAYS, LabelTally
from tfdlrm.data.inspect.raw_files import RawInput, name_of
from tfdlrm.data.inspect.report import BadRowCount, ColumnDrift, DataReport, DenseStats, IdStats, PartRows
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.raw_formats import default_spec, guess_format
from tfdlrm.data.typed import to_polars
from tfdlrm.schema import FeatureSpec

FORMATS = ("criteo", "avazu", "csv", "parquet", "arrow", "movielens", "prepared")

MAX_DISTINCT = 5_000_000
SAMPLE_ROWS = 2**18
NUM_SECTIONS = 7  # the days of the Criteo Kaggle data

# A smaller table cannot hold a sample worth the name.
_LEAST_DISTINCT = 1000
_LEAST_SAMPLE = 1000
_SAMPLE_BYTES = 256 * 2**20  # of one part's sample, whatever the number of columns
_SEED = 20190531
_FRAME = "frame"

Progress = Callable[[int], None]


def inspect_data(
    path: Any,
    *,
    data_format: str | None = None,
    schema: FeatureSpec | str | os.PathLike[str] | None = None,
    test_path: Any = None,
    id_modulo: int | None = None,
    max_rows: int | None = None,
    num_sections: int = NUM_SECTIONS,
    day_column: str | None = None,
    max_distinct: int = MAX_DISTINCT,
    sample_rows: int = SAMPLE_ROWS,
    progress: Progress | None = None,
) -> DataReport:
    """What a dataset holds: missing cells, ids, distributions, label rates, drift, and what looks wrong.

    Rows are read in blocks and never held together. Bad rows are counted by reason and are in no other number.

    Args:
        path: a raw file, MovieLens's folder, or a prepared folder; or a frame, see `tfdlrm.data.from_frame`.
        data_format: `criteo`, `csv`, `parquet`, `arrow`, `movielens` or `prepared`; None to guess.
        schema: the columns of raw rows, or the file that holds them; None for those of `DataConfig`.
        test_path: a second raw file, or frame, compared with the first; None to compare the last group of rows with
            the rest.
        id_modulo: integer and hex ids are taken modulo this.
        max_rows: read no more usable rows (of a prepared folder: of each part).
        num_sections: groups of contiguous rows, for label rates where there is no column of time.
        day_column: column of dates, seconds since 1970 or numbers of days; None to look for one among the columns
            that are no features.
        max_distinct: distinct ids of a column counted exactly; above it numbers are estimates, and the report says
            which.
        sample_rows: rows of a part from which quantiles, histograms and drift of dense columns are taken.
        progress: called with the number of rows read so far.

    Raises:
        FileNotFoundError, IsADirectoryError: a path is wrong.
        TypeError: neither a path nor a frame.
        ValueError: an empty file, another format, a column that the schema does not have.
        ImportError: polars (pyarrow, for a prepared folder) is not installed.

    Example:
        >>> report = inspect_data("train.txt")
        >>> report.data_format, report.labels[0].rate
        ('criteo', 0.256)
    """
    for name, value, minimum in (
        ("max_distinct", max_distinct, _LEAST_DISTINCT),
        ("sample_rows", sample_rows, _LEAST_SAMPLE),
        ("num_sections", num_sections, 1),
    ):
        checks.check_integer("inspect_data", name, value, minimum=minimum)
    for name, optional in (("max_rows", max_rows), ("id_modulo", id_modulo)):
        checks.check_optional(checks.check_integer, "inspect_data", name, optional, minimum=1)
    path, test_path = _rows_at(path), None if test_path is None else _rows_at(test_path)
    how_format = "as given"
    if isinstance(path, pl.DataFrame) or isinstance(test_path, pl.DataFrame):
        if data_format is not None or type(test_path) not in (type(path), type(None)):
            raise ValueError("inspect_data: a frame is compared with a frame, and has no data_format. Give two frames.")
        data_format = _FRAME
    else:
        if data_format is None:
            data_format, how_format = guess_format(path)
        checks.check_choice("inspect_data", "data_format", data_format, FORMATS)
    source: InspectInput
    bad_rows: Callable[[], tuple[BadRowCount, ...]]
    if data_format == "prepared":
        source = _prepared(path, schema, test_path, id_modulo, max_rows, num_sections, day_column)
        bad_rows = tuple
    else:
        raw = RawInput(
            path,
            data_format=data_format,
            spec=_spec_of(schema, path, data_format),
            test_path=test_path,
            id_modulo=id_modulo,
            max_rows=max_rows,
            num_sections=num_sections,
            day_column=day_column,
        )
        source, bad_rows = raw, raw.quarantine.counts
    inspector = _Inspector(source, max_distinct, sample_rows)
    for block in source.blocks():
        inspector.add(block)
        if progress is not None:
            progress(source.rows_read)
    _check_form(path, source, bad_rows())
    return inspector.report(name_of(path), how_format, bad_rows())


def _rows_at(path: Any) -> Path | pl.DataFrame:
    return Path(path) if isinstance(path, (str, os.PathLike)) else to_polars(path)


class _Inspector:
    def __init__(self, source: InspectInput, max_distinct: int, sample_rows: int) -> None:
        spec = source.spec
        self._source = source
        self._spec = spec
        self._parts = list(source.parts)
        self._rows = dict.fromkeys(self._parts, 0)
        num_parts, num_tasks = len(self._parts), len(spec.labels)
        self._max_distinct = max_distinct
        self._labels = LabelTally(num_tasks, num_parts, len(source.section_names))
        self._dense = {column.name: DenseTally(num_parts, num_tasks) for column in spec.dense}
        self._ids = {column.name: IdTally(num_parts, num_tasks, max_distinct) for column in spec.categorical}
        self._capacity = min(sample_rows, max(_LEAST_SAMPLE, _SAMPLE_BYTES // (8 * max(1, spec.num_dense))))
        random = np.random.default_rng(_SEED)
        self._samples = {part: RowSample(self._capacity, spec.num_dense, random) for part in self._parts}

    def add(self, block: InspectBlock) -> None:
        part = self._parts.index(block.part)
        self._rows[block.part] += block.num_rows
        self._labels.add(part, block)
        for name, tally in self._dense.items():
            tally.add(part, block.dense[name], block.labels)
        for name, ids in self._ids.items():
            ids.add(part, block.ids[name], block.empty[name], block.labels)
        if self._dense:
            self._samples[block.part].add(np.stack([block.dense[name] for name in self._dense], axis=1))

    def report(self, path: str, how_format: str, bad_rows: tuple[BadRowCount, ...]) -> DataReport:
        source, spec = self._source, self._spec
        num_rows = sum(self._rows.values())
        tables = {name: ids.counts.table() for name, ids in self._ids.items()}
        labels = self._labels.stats(spec.labels, source.section_names)
        dense = self._dense_stats()
        categorical = tuple(ids.stats(name, tables[name], source.names(name)) for name, ids in self._ids.items())
        drift = self._drift(tables)
        return DataReport(
            path=path,
            data_format=source.data_format,
            how_format=how_format,
            rows_read=source.rows_read,
            rows_used=num_rows,
            rows_set_aside=source.rows_read - num_rows,
            bad_rows=bad_rows,
            parts=tuple(PartRows(name=part, rows=self._rows[part], what=what) for part, what in source.parts.items()),
            grouped_by=self._grouped_by(),
            labels=labels,
            dense=dense,
            categorical=categorical,
            drift=drift,
            findings=find(
                spec,
                labels=labels,
                dense=dense,
                categorical=categorical,
                drift=drift,
                bad_rows=bad_rows,
                leaks=self._leaks(tables),
                num_rows=num_rows,
                is_prepared=source.is_prepared,
            ),
            estimates=self._estimates(dense, categorical),
        )

    def _dense_stats(self) -> tuple[DenseStats, ...]:
        whole = RowSample.merged(list(self._samples.values()))
        samples = {part: sample.rows() for part, sample in self._samples.items()}
        return tuple(
            dense_stats(
                column,
                self._dense[column.name],
                {part: rows[:, place] for part, rows in samples.items()},
                whole.rows()[:, place],
                sampled=not whole.complete,
            )
            for place, column in enumerate(self._spec.dense)
        )

    def _drift(self, tables: Mapping[str, CountTable]) -> tuple[ColumnDrift, ...]:
        found = []
        train = self._parts[0]
        for number, part in enumerate(self._parts):
            if not number or not self._rows[train] or not self._rows[part]:
                continue
            found += [*self._label_drift(part, number), *self._dense_drift(train, part)]
            for name, table in tables.items():
                occurrences = self._ids[name].counts.occurrences
                if occurrences[0] and occurrences[number]:
                    unseen_id = self._source.unseen_ids.get(name)
                    psi, noise = population_stability(*id_bins(table, number, occurrences, unseen_id))
                    unseen = unseen_share(table, number, occurrences, unseen_id)
                    found.append(
                        ColumnDrift(name=name, kind="categorical", part=part, psi=psi, noise=noise, unseen_share=unseen)
                    )
        return tuple(found)

    def _label_drift(self, part: str, number: int) -> list[ColumnDrift]:
        rows, ones = self._labels.part_rows, self._labels.part_positives
        found = []
        for task, name in enumerate(self._spec.labels):
            if rows[0, task] and rows[number, task]:
                psi, noise = population_stability(
                    *(np.array([rows[each, task] - ones[each, task], ones[each, task]]) for each in (0, number))
                )
                found.append(ColumnDrift(name=name, kind="label", part=part, psi=psi, noise=noise))
        return found

    def _dense_drift(self, train: str, part: str) -> list[ColumnDrift]:
        found = []
        before, after = self._samples[train].rows(), self._samples[part].rows()
        for place, column in enumerate(self._spec.dense):
            psi, noise = population_stability(*dense_bins(before[:, place], after[:, place]))
            found.append(ColumnDrift(name=column.name, kind="dense", part=part, psi=psi, noise=noise))
        return found

    def _leaks(self, tables: Mapping[str, CountTable]) -> dict[str, list[str]]:
        leaks: dict[str, list[str]] = {}
        for task, label in enumerate(self._spec.labels):
            # a row without a label would count as one with label 0
            if self._labels.part_rows[:, task].sum() < self._labels.rows:
                continue
            of = f" {quoted(label)}" if len(self._spec.labels) > 1 else ""
            told = {name: dense_leak(tally, task) for name, tally in self._dense.items()}
            told |= {name: table_leak(table, task) for name, table in tables.items()}
            for name, text in told.items():
                if text is not None:
                    leaks.setdefault(name, []).append(f"leak: it {text.replace('label', 'label' + of, 1)}.")
        return leaks

    def _grouped_by(self) -> str:
        if self._labels.has_days():
            return f"day, of column {quoted(self._source.day_column)}"
        return "groups of contiguous rows, in the order of the file"

    def _estimates(self, dense: tuple[DenseStats, ...], categorical: tuple[IdStats, ...]) -> tuple[str, ...]:
        found = []
        sampled = [sample for sample in self._samples.values() if not sample.complete]
        if dense and (sampled or any(column.sampled for column in dense)):
            found.append(
                "quantiles (but min and max), histograms and drift of dense columns: of a random sample of "
                f"{self._capacity:,} rows (drift: of each part), rank error about {0.5 / self._capacity**0.5:.2%}."
            )
        many = [column.name for column in dense if not column.exact_counts]
        if many:
            found.append(
                f"frequent values of {', '.join(many)}: of the sample; these have more than {MAX_DENSE_DISTINCT:,} "
                "distinct values, which are not counted further."
            )
        for ids in categorical:
            if not ids.exact:
                missed = max((top.undercount for top in ids.top), default=0)
                found.append(
                    f"{ids.name}: distinct ids, head and tail shares, ids seen once and unseen ids, from a hash "
                    f"sample, as it has more than {self._max_distinct:,} ids (--max-distinct); standard error of the "
                    f"distinct ids {ids.relative_error:.2%}; counts of frequent ids are at most {missed:,} too low."
                )
        if self._labels.too_many_days:
            found.append(f"label rates by day: column {quoted(self._source.day_column)} has more than {MAX_DAYS} days.")
        return tuple(found)


def _spec_of(
    schema: FeatureSpec | str | os.PathLike[str] | None, path: Path | pl.DataFrame, data_format: str
) -> FeatureSpec:
    if isinstance(schema, FeatureSpec):
        return schema
    if isinstance(path, pl.DataFrame):
        if schema is None:
            raise ValueError(
                "inspect_data: a frame needs a schema. Give one, as of FeatureSpec.infer(frame, label=...)."
            )
        return FeatureSpec.load(schema)
    return default_spec(data_format, path, "--schema FILE") if schema is None else FeatureSpec.load(schema)


def _prepared(
    path: Path,
    schema: object,
    test_path: object,
    id_modulo: int | None,
    max_rows: int | None,
    num_sections: int,
    day_column: str | None,
) -> InspectInput:
    for name, value in (("schema", schema), ("test_path", test_path), ("id_modulo", id_modulo)):
        if value is not None:
            raise ValueError(f"{path}: {name} is given, and a prepared folder has its own. Leave it out.")
    from tfdlrm.data.inspect.prepared_folder import PreparedInput

    return PreparedInput(path, max_rows=max_rows, num_sections=num_sections, day_column=day_column)


def _check_form(path: Path | pl.DataFrame, source: InspectInput, bad_rows: tuple[BadRowCount, ...]) -> None:
    """Refuse a file in which nothing was found, or nothing that looks like a row of its format."""
    if not source.rows_read:
        raise ValueError(f"{name_of(path)}: no row in it. Give data with at least one row.")
    if bad_rows and sum(row.rows for row in bad_rows) == source.rows_read and not any(row.column for row in bad_rows):
        raise ValueError(
            f"{name_of(path)}: none of the {source.rows_read:,} rows is one of format {quoted(source.data_format)} "
            f"({bad_rows[0].reason}). Give the right --format or --schema."
        )
