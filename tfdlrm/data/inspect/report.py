"""DataReport: everything `inspect_data` found, as frozen records; `to_dict` gives what JSON can hold.

A number that has no value (the mean of no rows, the label rate of an unlabelled file) is None and never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfdlrm.records import Record

# Of the population stability index, by convention.
NOTABLE_PSI = 0.1
LARGE_PSI = 0.25

Severity = Literal["warning", "note"]


@dataclass(frozen=True, kw_only=True)
class PartRows(Record):
    """One part of the data.

    Args:
        name: `train`, `validation` or `test`.
        rows: usable rows.
        what: which rows these are.
    """

    name: str
    rows: int
    what: str


@dataclass(frozen=True, kw_only=True)
class BadRowCount(Record):
    """Rows set aside for one reason.

    Args:
        column: the column at fault, "" where it is the whole row.
        reason: what is wrong.
        rows: how many.
        example: file, line, value and fix of the first.
    """

    column: str
    reason: str
    rows: int
    example: str


@dataclass(frozen=True, kw_only=True)
class LabelRate(Record):
    """Label rate of some rows.

    Args:
        name: the day, or the part of the file.
        rows: labelled rows.
        rate: positives / rows; None without rows.
    """

    name: str
    rows: int
    rate: float | None


@dataclass(frozen=True, kw_only=True)
class LabelStats(Record):
    """One label column.

    Args:
        name: the column.
        rows: labelled rows.
        rate: positives / rows; None if there is no label.
        by_section: the same by day, or by part of the file.
    """

    name: str
    rows: int
    rate: float | None
    by_section: tuple[LabelRate, ...]


@dataclass(frozen=True, kw_only=True)
class TopValue(Record):
    """A frequent value.

    Args:
        value: as text; an id of a prepared folder with the raw value it stands for.
        count: times seen.
        share: count / all occurrences, 0 to 1.
        undercount: the true count is at most `count + undercount`; 0 where it is exact.
    """

    value: str
    count: int
    share: float
    undercount: int = 0


@dataclass(frozen=True, kw_only=True)
class Histogram(Record):
    """Shares of rows in bins of equal width between the 1 % and 99 % quantiles; the end bins hold the rest.

    Args:
        scale: `linear`, or `log1p` where bins are equal in ln(1 + max(x, 0)).
        edges: of the bins, on that scale, one more than bins.
        shares: part -> share of its present values a bin.
    """

    scale: str
    edges: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class DenseStats(Record):
    """One dense column. Raw files: raw numbers. Prepared folders: transformed ones, missing cells filled already.

    Args:
        name: the column.
        missing_rate: empty cells / rows; None without rows.
        distinct: distinct present values; a lower bound if not `exact_counts`.
        exact_counts: whether `distinct` and `top` are counted; otherwise `top` is of the sample of rows.
        top: the most frequent present values; share is of present values.
        mean, std: of present values (population); None if there is none.
        quantiles: `min`, `1%`, `25%`, `50%`, `75%`, `99%`, `max` -> value; empty if there is no value.
        sampled: whether the inner quantiles are of a sample of rows.
        histogram: None if there is no value.
    """

    name: str
    missing_rate: float | None
    distinct: int
    exact_counts: bool
    top: tuple[TopValue, ...]
    mean: float | None
    std: float | None
    quantiles: dict[str, float]
    sampled: bool
    histogram: Histogram | None


@dataclass(frozen=True, kw_only=True)
class IdStats(Record):
    """One categorical column. An empty cell is a value like any other; an id counts as often as it stands in a bag.

    Args:
        name: the column.
        missing_rate: empty cells (empty bags) / rows; None without rows.
        occurrences: ids in all rows.
        distinct: distinct ids.
        exact: whether every number is counted; otherwise `distinct`, `once_*` and `top_*` are estimates.
        relative_error: standard error of `distinct` / `distinct`; 0 if exact.
        top: the most frequent ids.
        top_1_share, top_10_share: occurrences of the most frequent 1 % and 10 % of ids (rounded up) / all.
        once_ids: share of the distinct ids that are seen once.
        once_share: occurrences of these / all.
        curve: (rank, count) of ids in falling order of count, at ranks in equal steps of log(rank).
        bag_length: (minimum, mean, maximum) ids a row; None where every row has one.
    """

    name: str
    missing_rate: float | None
    occurrences: int
    distinct: int
    exact: bool
    relative_error: float
    top: tuple[TopValue, ...]
    top_1_share: float | None
    top_10_share: float | None
    once_ids: float | None
    once_share: float | None
    curve: tuple[tuple[int, int], ...]
    bag_length: tuple[int, float, int] | None


@dataclass(frozen=True, kw_only=True)
class ColumnDrift(Record):
    """How far a column of another part is from the training part.

    Args:
        name: the column.
        kind: `label`, `dense` or `categorical`.
        part: the part compared with `train`.
        psi: population stability index, sum of (q - p) ln(q / p) over bins.
        noise: what psi would hardly exceed without any drift, at these numbers of rows.
        unseen_share: occurrences of ids never seen in train / all of the part; None but for categorical columns.
    """

    name: str
    kind: str
    part: str
    psi: float
    noise: float
    unseen_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finding(Record):
    """Something to look at before training.

    Args:
        severity: `warning` may spoil a model; `note` is worth knowing.
        column: the column, "" where it is of the whole dataset.
        text: what was found and what to do.
    """

    severity: Severity
    column: str
    text: str


@dataclass(frozen=True, kw_only=True)
class DataReport(Record):
    """What `inspect_data` found.

    Args:
        path: what was read.
        data_format: `criteo`, `csv`, `parquet`, `movielens` or `prepared`.
        how_format: how the format was chosen.
        rows_read, rows_used, rows_set_aside: read = used + set aside.
        bad_rows: rows set aside, by column and reason, most frequent first.
        parts: the parts compared.
        grouped_by: what the groups in `LabelStats.by_section` are.
        labels, dense, categorical: the columns, in the schema's order.
        drift: every column of every other part against train.
        findings: warnings first.
        estimates: which numbers are not exact, and how far off they may be; empty if all are exact.

    Example:
        >>> report = inspect_data("rows.csv")
        >>> report.labels[0].rate, report.to_dict()["rows_used"]
        (0.25, 100000)
    """

    path: str
    data_format: str
    how_format: str
    rows_read: int
    rows_used: int
    rows_set_aside: int
    bad_rows: tuple[BadRowCount, ...]
    parts: tuple[PartRows, ...]
    grouped_by: str
    labels: tuple[LabelStats, ...]
    dense: tuple[DenseStats, ...]
    categorical: tuple[IdStats, ...]
    drift: tuple[ColumnDrift, ...]
    findings: tuple[Finding, ...]
    estimates: tuple[str, ...]
