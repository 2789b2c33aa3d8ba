"""Findings: what in a report deserves a look, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfdlrm.data.inspect.drift import LARGE_PSI, NOTABLE_PSI
from tfdlrm.data.inspect.report import BadRowCount, ColumnDrift, DenseStats, Finding, IdStats, LabelStats
from tfdlrm.data.inspect.tables import percent
from tfdlrm.data.transforms import transform_dense
from tfdlrm.schema import DenseColumn, FeatureSpec

_DOMINANT_SHARE = 0.5
_MOSTLY_MISSING = 0.5
_NOTABLE_UNSEEN = 0.05


def find(
    spec: FeatureSpec,
    *,
    labels: Sequence[LabelStats],
    dense: Sequence[DenseStats],
    categorical: Sequence[IdStats],
    drift: Sequence[ColumnDrift],
    bad_rows: Sequence[BadRowCount],
    leaks: Mapping[str, Sequence[str]],
    num_rows: int,
    is_prepared: bool,
) -> tuple[Finding, ...]:
    """All findings, warnings first.

    Args:
        spec: the columns.
        labels, dense, categorical, drift, bad_rows: of the report.
        leaks: column -> what tells a label.
        num_rows: usable rows.
        is_prepared: dense values are transformed and filled.
    """
    found = [
        *_of_rows(num_rows, bad_rows),
        *_of_labels(labels, num_rows),
        *(_warning(column, text) for column, texts in leaks.items() for text in texts),
    ]
    for column, numbers in zip(spec.dense, dense, strict=True):
        found += _of_dense(column, numbers, is_prepared)
    for ids in categorical:
        found += _of_ids(ids)
    found += _of_drift(spec, drift, is_prepared)
    return tuple(sorted(found, key=lambda finding: finding.severity == "note"))


def _warning(column: str, text: str) -> Finding:
    return Finding(severity="warning", column=column, text=text)


def _note(column: str, text: str) -> Finding:
    return Finding(severity="note", column=column, text=text)


def _of_rows(num_rows: int, bad_rows: Sequence[BadRowCount]) -> Iterator[Finding]:
    if not num_rows:
        yield _warning("", "no row can be used. See the bad rows, and check format and schema.")
    num_bad = sum(row.rows for row in bad_rows)
    if num_bad:
        share = num_bad / (num_bad + num_rows)
        yield _warning("", f"{num_bad:,} rows ({share:.2%}) cannot be read and are in no number of this report.")


def _of_labels(labels: Sequence[LabelStats], num_rows: int) -> Iterator[Finding]:
    for label in labels:
        if num_rows and not label.rows:
            yield _note(label.name, "no row has a label: nothing is said about label rates and leaks.")
        elif label.rows < num_rows:
            yield _warning(label.name, f"{num_rows - label.rows:,} rows have no label.")
        if label.rows and label.rate in (0.0, 1.0):
            yield _warning(label.name, f"every label is {label.rate:.0f}: there is nothing to learn.")


def _of_dense(column: DenseColumn, numbers: DenseStats, is_prepared: bool) -> Iterator[Finding]:
    if numbers.missing_rate is None:
        return
    if not numbers.quantiles:
        yield _warning(column.name, "every cell is empty. Remove the column.")
        return
    top = numbers.top[0]
    if numbers.exact_counts and numbers.distinct == 1:
        empty = ", or the cell is empty" if numbers.missing_rate else ""
        yield _warning(column.name, f"constant: every value is {top.value}{empty}. Remove the column.")
        return
    of_all = top.share * (1.0 - numbers.missing_rate)
    if of_all > _DOMINANT_SHARE and float(top.value) != _missing_value(column, is_prepared):
        yield _warning(
            column.name,
            f"one value, {top.value}, holds {of_all:.1%} of the rows. Does it stand for a missing one?",
        )
    if numbers.missing_rate > _MOSTLY_MISSING:
        yield _note(column.name, f"{numbers.missing_rate:.1%} of the cells are empty.")


def _missing_value(column: DenseColumn, is_prepared: bool) -> float | None:
    """The number that stands in for an empty cell, as `number_text` writes it."""
    if column.missing is None:
        return None
    value = column.missing
    if is_prepared:
        value = float(transform_dense(column, np.array([value]))[0])
    return float(f"{value:.9g}")


def _of_ids(ids: IdStats) -> Iterator[Finding]:
    if ids.missing_rate is not None and not ids.occurrences:
        yield _warning(ids.name, "every bag is empty. Remove the column.")
    elif ids.distinct == 1:
        yield _warning(ids.name, f"constant: the only id is {ids.top[0].value}. Remove the column.")
    if ids.missing_rate is not None and ids.occurrences and ids.missing_rate > _MOSTLY_MISSING:
        yield _note(ids.name, f"{ids.missing_rate:.1%} of the cells are empty.")


def _of_drift(spec: FeatureSpec, drift: Sequence[ColumnDrift], is_prepared: bool) -> Iterator[Finding]:
    closed = {
        column.name
        for column in spec.categorical
        if column.encoding in ("vocabulary", "hex") and column.id_policy != "oov"
    }
    for column in drift:
        if column.psi > max(NOTABLE_PSI, column.noise):
            text = f"differs between train and {column.part}: population stability index {column.psi:.3f}"
            if column.psi > LARGE_PSI:
                yield _warning(column.name, f"{text}, a large change.")
            else:
                yield _note(column.name, f"{text}.")
        unseen = column.unseen_share or 0.0
        if unseen and column.name in closed and not is_prepared:
            yield _warning(
                column.name,
                f"{percent(unseen)} of the ids of {column.part} are not in train, and their rows are refused if the "
                "vocabulary is made of train. Set id_policy: oov.",
            )
        elif unseen > _NOTABLE_UNSEEN:
            yield _note(column.name, f"{unseen:.1%} of the ids of {column.part} are not in train.")
