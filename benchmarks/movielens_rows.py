"""MovieLens-100k as rows of a TFX pipeline, by the protocol of the preset `movielens-100k`, and the config for it.

    python benchmarks/movielens_rows.py ml-100k build/movielens
    tfdlrm pipeline run build/movielens/config.yaml
    tfdlrm evaluate build/movielens/run/Trainer/model_run/9 --data build/movielens/rows/test/rows.csv

The first 80 % of the ratings in order of time are for training, 10 % for the choice of the epoch, 10 % for the test.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.config import PipelineConfig
from tfdlrm.config import preset
from tfdlrm.data.movielens import MovieLensSource
from tfdlrm.data.movielens_columns import movielens_feature_spec
from tfdlrm.data.quarantine import Quarantine

PRESET = "movielens-100k"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the ratings, users and items; see docs/data.md")
    parser.add_argument("output", type=Path, help="folder of the rows and the config")
    arguments = parser.parse_args(argv)
    spec, config = movielens_feature_spec(), preset(PRESET)
    (block,) = MovieLensSource(arguments.source, Quarantine("error")).blocks()
    frame = block.load().select(spec.column_names)
    first = int(len(frame) * config.data.train_fraction)
    second = int(len(frame) * (config.data.train_fraction + config.data.validation_fraction))
    for name, start, stop in (("train", 0, first), ("eval", first, second), ("test", second, len(frame))):
        file = arguments.output / "rows" / name / "rows.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        frame[start:stop].write_csv(file)
        print(f"{file}: {stop - start:,} rows")
    pipeline = PipelineConfig(
        name="movielens",
        data=str(arguments.output / "rows"),
        root=str(arguments.output / "run"),
        schema=spec,
        model=config.model,
        train=config.train,
    )
    (arguments.output / "config.yaml").write_text(pipeline.to_yaml(), encoding="utf-8")


if __name__ == "__main__":
    main()
