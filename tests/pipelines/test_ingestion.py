"""Rows become examples, statistics and a schema, in the real TFX."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from pipelines.pipeline import create_pipeline
from pipelines.run_local import run_local
from tests.pipelines.generated_rows import GENRES, HEADER, write_rows

ROWS = 2000


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    run_local(create_pipeline("clicks", write_rows(folder / "data", ROWS), folder / "root"))
    return folder / "root"


def executions(root: Path) -> dict[str, list[str]]:
    """Component -> the state of each of its executions, in order."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(root / "metadata.sqlite")
    store = metadata_store.MetadataStore(config)
    types = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
    found: dict[str, list[str]] = {}
    for execution in sorted(store.get_executions(), key=lambda each: each.id):
        state = metadata_store_pb2.Execution.State.Name(execution.last_known_state)
        found.setdefault(types[execution.type_id], []).append(state)
    return found


def test_every_row_is_an_example_of_one_split(root) -> None:
    files = sorted(root.glob("CsvExampleGen/examples/*/Split-*/*.gz"))
    assert {file.parent.name for file in files} == {"Split-train", "Split-eval"}
    rows = [record for file in files for record in tf.data.TFRecordDataset(str(file), "GZIP")]
    assert len(rows) == ROWS
    example = tf.train.Example.FromString(rows[0].numpy())
    assert set(example.features.feature) == set(HEADER)


def test_statistics_are_those_of_the_rows(root) -> None:
    counts = {}
    for split in ("train", "eval"):
        file = next(root.glob(f"StatisticsGen/statistics/*/Split-{split}/FeatureStats.pb"))
        counts[split] = tfdv.load_stats_binary(str(file)).datasets[0].num_examples
    assert sum(counts.values()) == ROWS
    assert counts["train"] > counts["eval"] > 0


def test_the_schema_has_every_column_with_its_type(root) -> None:
    schema = tfdv.load_schema_text(str(next(root.glob("SchemaGen/schema/*/schema.pbtxt"))))
    types = {feature.name: feature.type for feature in schema.feature}
    bytes_, int_, float_ = 1, 2, 3  # of schema_pb2.FeatureType
    assert types == {"click": int_, "age": int_, "price": float_, "user": int_, "genre": bytes_}
    assert set(tfdv.get_domain(schema, "genre").value) == set(GENRES)


def test_a_second_run_takes_all_from_the_cache(root) -> None:
    run_local(create_pipeline("clicks", root.parent / "data", root))
    found = executions(root)
    assert {name: states[-1] for name, states in found.items()} == dict.fromkeys(
        ("CsvExampleGen", "StatisticsGen", "SchemaGen"), "CACHED"
    )
    assert all(states[0] == "COMPLETE" for states in found.values())


def test_a_folder_without_rows_is_refused(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(FileNotFoundError, match=f"{folder}: no folder with CSV files"):
            create_pipeline("clicks", tmp_path / folder, tmp_path / "root")
