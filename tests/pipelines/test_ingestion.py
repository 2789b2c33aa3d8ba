"""Rows become examples, statistics and a schema, in the real TFX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv

from pipelines.pipeline import create_pipeline
from pipelines.run_local import run_local
from tests.pipelines.generated_rows import GENRES, HEADER
from tests.pipelines.pipeline_run import ROWS, Run, pipeline_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


def test_every_row_is_an_example_of_one_split(run) -> None:
    files = [*run.examples("train"), *run.examples("eval")]
    assert {Path(file).parent.name for file in files} == {"Split-train", "Split-eval"}
    rows = [record for file in files for record in tf.data.TFRecordDataset(file, "GZIP")]
    assert len(rows) == ROWS
    example = tf.train.Example.FromString(rows[0].numpy())
    assert set(example.features.feature) == set(HEADER)


def test_statistics_are_those_of_the_rows(run) -> None:
    counts = {}
    for split in ("train", "eval"):
        file = run.artifact(f"StatisticsGen/statistics/*/Split-{split}/FeatureStats.pb")
        counts[split] = tfdv.load_stats_binary(str(file)).datasets[0].num_examples
    assert sum(counts.values()) == ROWS
    assert counts["train"] > counts["eval"] > 0


def test_the_schema_has_every_column_with_its_type(run) -> None:
    schema = tfdv.load_schema_text(str(run.artifact("SchemaGen/schema/*/schema.pbtxt")))
    types = {feature.name: feature.type for feature in schema.feature}
    text, whole, number = 1, 2, 3  # of schema_pb2.FeatureType
    assert {name: types[name] for name in ("click", "age", "price", "user", "genre", "tags", "pair weights")} == {
        "click": whole,
        "age": whole,
        "price": number,
        "user": whole,
        "genre": text,
        "tags": text,
        "pair weights": text,
    }
    assert types.keys() == set(HEADER)
    assert set(tfdv.get_domain(schema, "genre").value) == set(GENRES)


def test_a_second_run_takes_all_from_the_cache(run) -> None:
    first = run.store.runs()[0]
    again = run_local(create_pipeline(run.config))
    assert {each.component: each.state for each in again.run.executions if not each.is_resolver} == dict.fromkeys(
        [each.component for each in first.executions if not each.is_resolver], "CACHED"
    )
    assert all(each.state == "COMPLETE" for each in first.executions)
    assert again.pushed == run.version


def test_a_folder_without_rows_is_refused(run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(FileNotFoundError, match=f"{folder}: no folder with CSV files"):
            create_pipeline(replace(run.config, data=str(tmp_path / folder)))
