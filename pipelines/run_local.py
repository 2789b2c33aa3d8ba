"""Runs a pipeline on this machine, in this process."""

from __future__ import annotations

import tempfile

from pipelines.tfx_extra import tfx


def run_local(pipeline: tfx.dsl.Pipeline) -> None:
    """Runs every component, each after those it takes artifacts from, and returns after the last.

    Args:
        pipeline: from `create_pipeline`, not run before.

    Raises:
        Exception: of the component that failed; what ran before it is kept and is not run again by the next run.

    Example:
        >>> run_local(create_pipeline("clicks", "data/clicks", "runs/clicks", spec, config))
    """
    before = tempfile.tempdir
    # TFX leaves tens of megabytes a run in the temporary folder
    with tempfile.TemporaryDirectory(prefix="tfdlrm-pipeline-") as folder:
        tempfile.tempdir = folder
        try:
            tfx.orchestration.LocalDagRunner().run(pipeline)
        finally:
            tempfile.tempdir = before
