"""One run of the pipeline on generated rows, for all tests that look at what came of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from pipelines.pipeline import create_pipeline
from pipelines.preprocessing import read_preprocessing, transform_config
from pipelines.run_local import run_local
from pipelines.tfx_extra import tft, tfx
from pipelines.transform_encoder import TransformEncoder
from tests.pipelines.generated_rows import SPEC, small_config, write_rows
from tfdlrm.data.preprocessing import Preprocessing

NAME = "clicks"
ROWS = 3000
MIN_COUNT = 2
CANDIDATES = ("genre", "item")


class Run(NamedTuple):
    """Of the pipeline: the folder of its rows, and that of its artifacts."""

    data: Path
    root: Path

    def artifact(self, pattern: str) -> Path:
        """The only one of its kind."""
        (path,) = self.root.glob(pattern)
        return path

    def transform(self) -> tft.TFTransformOutput:
        return tft.TFTransformOutput(str(self.artifact("Transform/transform_graph/*")))

    def preprocessing(self) -> Preprocessing:
        return read_preprocessing(self.transform(), transform_config(SPEC, min_count=MIN_COUNT))

    def encoder(self) -> TransformEncoder:
        return TransformEncoder(self.transform(), self.preprocessing())

    @property
    def model_dir(self) -> Path:
        return self.artifact("Trainer/model_run/*")

    @property
    def export(self) -> Path:
        return self.artifact("Trainer/model/*/Format-Serving")

    @property
    def pushed(self) -> Path:
        """Of servers: one folder a version."""
        return self.root / "serving"

    def examples(self, split: str = "eval") -> list[str]:
        """Files of the raw examples of a split."""
        return sorted(map(str, self.root.glob(f"CsvExampleGen/examples/*/Split-{split}/*.gz")))

    def executions(self) -> dict[str, list[str]]:
        """Component -> the state of each of its executions, in order."""
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(self.root / "metadata.sqlite")
        store = metadata_store.MetadataStore(config)
        types = {kind.id: kind.name.rpartition(".")[2] for kind in store.get_execution_types()}
        found: dict[str, list[str]] = {}
        for execution in sorted(store.get_executions(), key=lambda each: each.id):
            state = metadata_store_pb2.Execution.State.Name(execution.last_known_state)
            found.setdefault(types[execution.type_id], []).append(state)
        return found


def pipeline(run: Run) -> tfx.dsl.Pipeline:
    """As `pipeline_run` runs it."""
    return create_pipeline(NAME, run.data, run.root, SPEC, small_config(), min_count=MIN_COUNT, candidates=CANDIDATES)


@functools.cache
def pipeline_run(temporary: Path) -> Run:
    """The run, made once.

    Args:
        temporary: of this session of tests, from `tmp_path_factory.getbasetemp()`.
    """
    folder = temporary / "pipeline-run"
    run = Run(write_rows(folder / "data", ROWS), folder / "root")
    run_local(pipeline(run))
    return run
