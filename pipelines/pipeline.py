"""What a pipeline is made of.

CSV files --> CsvExampleGen --> StatisticsGen --> SchemaGen
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.tfx_extra import tfx


def create_pipeline(
    name: str, data: str | os.PathLike[str], root: str | os.PathLike[str], *, cache: bool = True
) -> tfx.dsl.Pipeline:
    """Reads rows, describes them, and infers their schema.

    Components belong to the pipeline that they are given to: make another one for another run.

    Args:
        name: of the pipeline, in the metadata store.
        data: folder of CSV files with a header line, separated by commas.
        root: folder of all artifacts, and of the metadata store, `metadata.sqlite`; made where it does not exist.
        cache: take over what an earlier run made of the same inputs.

    Raises:
        FileNotFoundError: `data` holds no file.

    Example:
        >>> run_local(create_pipeline("clicks", "data/clicks", "runs/clicks"))
    """
    data, root = Path(data).absolute(), Path(root).absolute()
    if not data.is_dir() or not any(entry.is_file() for entry in data.iterdir()):
        raise FileNotFoundError(f"{data}: no folder with CSV files. Give one with at least one.")
    root.mkdir(parents=True, exist_ok=True)
    examples = tfx.components.CsvExampleGen(input_base=str(data))
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    # ids of a bag are as many as a row has: shapes are not inferred from the rows at hand
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=False)
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(root),
        components=[examples, statistics, schema],
        enable_cache=cache,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
    )
