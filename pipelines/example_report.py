"""ExampleReport and ExampleGate: what is wrong with the examples of a run, and the stop where something is.

ExampleValidator compares statistics with the schema. ExampleReport adds what a schema does not say: the shift from the
examples that were accepted last and between the splits, splits without rows, NaN, and columns that repeat the label.
Its report is kept whatever it says; ExampleGate fails where there is a problem, so that nothing is trained.
"""

# without `from __future__ import annotations`: TFX reads the annotations of a component's function
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_metadata.proto.v0.anomalies_pb2 import Anomalies

from pipelines.artifacts import BLESSED, CURRENT_STATISTICS, ExamplesBlessing, Report
from pipelines.config import ExamplesConfig, ShiftConfig
from pipelines.report import PAGE, read_problems, write_report
from pipelines.shift import divergence, missing_share, nan_values, num_rows
from pipelines.tfx_extra import tfdv, tfx
from tfdlrm.checks import quoted

_TRAIN = "train"


@tfx.dsl.components.component
def ExampleReport(
    statistics: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ExampleStatistics],
    anomalies: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ExampleAnomalies],
    examples: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Examples],
    report: tfx.dsl.components.OutputArtifact[Report],
    columns: tfx.dsl.components.Parameter[str],
    settings: tfx.dsl.components.Parameter[str],
    baseline: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ExampleStatistics] = None,
) -> None:
    """Writes `report.html` with the statistics, and `problems.json`.

    Args:
        statistics: of StatisticsGen.
        anomalies: of ExampleValidator.
        examples: of ExampleGen; read where a column's statistics are those of the label.
        report: the folder of both files.
        columns: as JSON, "label" and, of the columns of numbers, "dense".
        settings: an `ExamplesConfig` as JSON.
        baseline: statistics of the examples that were accepted last.
    """
    config = ExamplesConfig.from_dict(json.loads(settings))
    found = _load(statistics)
    before = {} if baseline is None else _load(baseline)
    names = json.loads(columns)
    problems = [*_of_schema(Path(anomalies.uri)), *_of_rows(found, names["label"], names["dense"], config)]
    problems += [
        f"column {quoted(name)} has the value of the label {quoted(names['label'])} in every row. Leave it out."
        for name in _suspects(found, names["label"])
        if _is_label(name, names["label"], Path(examples.uri))
    ]
    shifts: dict[str, dict[str, float]] = {}  # of a split
    if all(part.datasets[0].num_examples for part in found.values()):
        if before:
            shifts[_TRAIN], texts = _shift(found[_TRAIN], before[_TRAIN], config.drift, "the rows accepted last")
            problems += texts
        for split in sorted(found.keys() - {_TRAIN}):
            whose = f"the rows for training ({split})"
            shifts[split], texts = _shift(found[split], found[_TRAIN], config.skew, whose)
            problems += texts
    sections = []
    for split, part in found.items():
        kind = "drift" if split == _TRAIN else "skew"
        sections.append((f"Split {split}", list(_rows(part.datasets[0], kind, shifts.get(split, {})))))
    write_report(Path(report.uri), "Examples", problems, sections)


@tfx.dsl.components.component
def ExampleGate(
    statistics: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ExampleStatistics],
    report: tfx.dsl.components.InputArtifact[Report],
    blessing: tfx.dsl.components.OutputArtifact[ExamplesBlessing],
) -> None:
    """Fails where the report has a problem.

    Args:
        statistics: of StatisticsGen.
        report: of ExampleReport.
        blessing: says that the examples of `statistics` are accepted.

    Raises:
        ValueError: names every problem.
    """
    problems = read_problems(Path(report.uri))
    if problems:
        raise ValueError(
            f"the examples are not accepted: {' '.join(problems)} See {Path(report.uri) / PAGE}. Nothing was trained."
        )
    blessing.set_int_custom_property(BLESSED, 1)
    blessing.set_int_custom_property(CURRENT_STATISTICS, statistics.id)


def _load(statistics: Any) -> dict[str, Any]:
    """Split -> its statistics."""
    return {
        split: tfdv.load_stats_binary(str(Path(statistics.uri) / f"Split-{split}" / "FeatureStats.pb"))
        for split in json.loads(statistics.split_names)
    }


def _of_schema(folder: Path) -> Iterator[str]:
    """What ExampleValidator found."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.glob("Split-*/SchemaDiff.pb")):
        anomalies = Anomalies.FromString(file.read_bytes())
        columns = anomalies.anomaly_info.items()
        reasons = [(f"column {quoted(name)}", reason) for name, info in columns for reason in info.reason]
        reasons += [("rows", reason) for reason in anomalies.dataset_anomaly_info.reason]
        for what, reason in reasons:
            text = f"{what}: {reason.short_description}: {reason.description.rstrip('.')}"
            found.setdefault(text, []).append(file.parent.name.removeprefix("Split-"))
    for text, splits in sorted(found.items()):
        yield f"{text} ({', '.join(splits)})."


def _of_rows(found: dict[str, Any], label: str, dense: list[str], config: ExamplesConfig) -> Iterator[str]:
    for split, part in found.items():
        data = part.datasets[0]
        if not data.num_examples:
            yield f"{split}: no row. Give more rows, or divide them yourself in folders."
            continue
        columns = {_name(feature): feature for feature in data.features}
        if label in columns:
            yield from _of_label(split, label, columns[label])
        for name in dense:
            if name in columns and columns[name].HasField("string_stats"):
                yield f"{split}: column {quoted(name)}: text ({_texts(columns[name])}), and numbers are expected."
        for name, feature in columns.items():
            share = nan_values(feature) / max(feature.num_stats.common_stats.tot_num_values, 1)
            if share > config.max_nan:
                yield (
                    f"{split}: column {quoted(name)}: {share:.1%} of the values are NaN, and examples.max_nan is "
                    f"{config.max_nan:.1%}."
                )


def _of_label(split: str, label: str, feature: Any) -> Iterator[str]:
    numbers = feature.num_stats
    if feature.HasField("string_stats"):
        yield f"{split}: label {quoted(label)}: text ({_texts(feature)}), and 0 or 1 is expected."
    elif missing_share(feature):
        rows = num_rows(feature)
        yield f"{split}: label {quoted(label)}: {round(missing_share(feature) * rows):,} of {rows:,} rows have none."
    elif numbers.min < 0 or numbers.max > 1:
        yield f"{split}: label {quoted(label)}: values from {numbers.min:g} to {numbers.max:g}, and 0 or 1 is expected."
    elif not numbers.std_dev:
        yield f"{split}: label {quoted(label)}: it is {numbers.mean:g} in every row. There is nothing to learn."


def _texts(feature: Any) -> str:
    """Some values that are no numbers, the most frequent first."""
    values = [bucket.label for bucket in feature.string_stats.rank_histogram.buckets]
    return ", ".join(repr(value) for value in [value for value in values if not _is_number(value)][:3])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _suspects(found: dict[str, Any], label: str) -> set[str]:
    """Columns whose mean, deviation and extremes are the label's in every split."""
    suspects: list[set[str]] = []
    for part in found.values():
        columns = {_name(feature): feature.num_stats for feature in part.datasets[0].features}
        if label not in columns or not columns[label].std_dev:
            return set()
        suspects.append({name for name, numbers in columns.items() if _moments(numbers) == _moments(columns[label])})
    return set.intersection(*suspects) - {label}


def _moments(numbers: Any) -> tuple[float, ...]:
    return numbers.mean, numbers.std_dev, numbers.num_zeros, numbers.min, numbers.max


def _is_label(name: str, label: str, folder: Path) -> bool:
    """Whether a column has the label's value in every example: one of 0 and 1 may have its statistics by chance."""
    files = sorted(str(file) for file in folder.glob("Split-*/*.gz"))
    for record in tf.data.TFRecordDataset(files, "GZIP"):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        if _number(features[name]) != _number(features[label]):
            return False
    return True


def _number(feature: tf.train.Feature) -> list[float]:
    return [*feature.int64_list.value, *feature.float_list.value]


def _shift(now: Any, before: Any, limits: ShiftConfig, whose: str) -> tuple[dict[str, float], list[str]]:
    """Column -> divergence, and the columns that are beyond their threshold."""
    others = {_name(feature): feature for feature in before.datasets[0].features}
    shifts, problems = {}, []
    for feature in now.datasets[0].features:
        name = _name(feature)
        if name in others:
            shifts[name] = divergence(feature, others[name])
            limit = limits.of(name)
            if limit is not None and shifts[name] > limit:
                problems.append(
                    f"column {quoted(name)}: its values are {shifts[name]:.3f} away from those of {whose} "
                    f"(Jensen-Shannon divergence), and {limit:g} is allowed."
                )
    return shifts, problems


def _name(feature: Any) -> str:
    return ".".join(feature.path.step) or feature.name


def _rows(data: Any, kind: str, shifts: dict[str, float]) -> Iterator[dict[str, Any]]:
    """A row a column of the report, with its drift or skew."""
    for feature in data.features:
        row: dict[str, Any] = {
            "column": _name(feature),
            "rows": num_rows(feature),
            "missing": missing_share(feature),
        }
        if feature.HasField("num_stats"):
            numbers = feature.num_stats
            row |= {
                "mean": numbers.mean,
                "deviation": numbers.std_dev,
                "minimum": numbers.min,
                "median": numbers.median,
                "maximum": numbers.max,
                "zeros": numbers.num_zeros,
                "NaN": nan_values(feature),
            }
        else:
            row |= {
                "distinct": feature.string_stats.unique,
                "most frequent": ", ".join(
                    f"{value.value} ({value.frequency:,.0f})" for value in feature.string_stats.top_values[:3]
                ),
            }
        yield row | ({kind: shifts.get(row["column"])} if shifts else {})
