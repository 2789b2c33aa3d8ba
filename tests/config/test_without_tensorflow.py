"""A config is read, changed and written without TensorFlow, whose import takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.multiprocess

READ = """
import sys
import tfdlrm
config = tfdlrm.load_config("mlperf-dcnv2")
tfdlrm.ExperimentConfig.from_yaml(config.to_yaml())
tfdlrm.TableConfig(name="t", vocabulary_size=9, embedding_dim=4, optimizer=tfdlrm.optimizers.Adagrad(0.1))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "polars", "pyarrow"}))
"""


def test_a_config_needs_no_tensorflow() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
