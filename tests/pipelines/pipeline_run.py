"""One run of the pipeline on generated rows, for all tests that look at what came of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from pipelines.config import EvaluationConfig, PipelineConfig
from pipelines.lineage import Store
from pipelines.pipeline import create_pipeline
from pipelines.preprocessing import read_preprocessing, transform_config
from pipelines.run_local import run_local
from pipelines.tfx_extra import tft
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
        """That of the first run."""
        return min(self.root.glob(pattern), key=lambda path: int(next(filter(str.isdecimal, path.parts[::-1]))))

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

    @property
    def version(self) -> Path:
        """The first that was pushed."""
        return min(self.pushed.iterdir(), key=lambda path: int(path.name))

    def examples(self, split: str = "eval") -> list[str]:
        """Files of the raw examples of a split."""
        return sorted(map(str, self.artifact(f"CsvExampleGen/examples/*/Split-{split}").glob("*.gz")))

    @property
    def config(self) -> PipelineConfig:
        """As `pipeline_run` runs it."""
        small = small_config()
        return PipelineConfig(
            name=NAME,
            data=str(self.data),
            root=str(self.root),
            schema=SPEC,
            model=small.model,
            train=small.train,
            min_count=MIN_COUNT,
            candidates=CANDIDATES,
            evaluation=EvaluationConfig(slices=(("genre",),)),
        )

    @property
    def store(self) -> Store:
        """The metadata store."""
        return Store(self.config.store)


@functools.cache
def pipeline_run(temporary: Path) -> Run:
    """The run, made once. Tests may run other pipelines with its root after it: the first run stays the first.

    Args:
        temporary: of this session of tests, from `tmp_path_factory.getbasetemp()`.
    """
    folder = temporary / "pipeline-run"
    run = Run(write_rows(folder / "data", ROWS), folder / "root")
    result = run_local(create_pipeline(run.config))
    assert result.pushed is not None, result.problems
    return run
