"""Rows become examples, statistics and a schema, in the real TFX."""

from __future__ import annotations

import json
import shutil
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


@pytest.mark.parametrize(
    ("folders", "judged_by"), [((), "eval"), (("train", "eval"), "eval"), (("train", "eval", "test"), "test")]
)
def test_folders_of_rows_are_splits_and_the_last_is_judged_by(run, tmp_path, folders, judged_by) -> None:
    files = sorted(run.data.glob("*.csv"))
    for folder in folders or ("",):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(files[0], tmp_path / folder)
    made = create_pipeline(replace(run.config, data=str(tmp_path), root=str(tmp_path / "root")))
    components = {component.id: component for component in made.components}
    assert json.loads(components["Evaluator"].exec_properties["example_splits"]) == [judged_by]
    splits = json.loads(components["CsvExampleGen"].exec_properties["input_config"])["splits"]
    assert [split["pattern"] for split in splits] == ([f"{folder}/*.csv" for folder in folders] or ["*.csv"])


def test_a_root_that_is_a_file_is_named(run, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="root cannot be this folder: File exists") as error:
        create_pipeline(replace(run.config, root=str(tmp_path / "file")))
    assert error.value.filename == str(tmp_path / "file")


def test_splits_that_are_not_whole_are_refused(run, tmp_path) -> None:
    (tmp_path / "train").mkdir()
    file = next(run.data.glob("*.csv"))
    shutil.copy(file, tmp_path / "train")
    config = replace(run.config, data=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="CSV files are in train alone"):
        create_pipeline(config)
    shutil.copy(file, tmp_path)
    with pytest.raises(ValueError, match="CSV files are there and in train, too"):
        create_pipeline(config)


def test_a_folder_without_rows_is_refused(run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(FileNotFoundError, match=f"{folder}: no folder with CSV files"):
            create_pipeline(replace(run.config, data=str(tmp_path / folder)))
