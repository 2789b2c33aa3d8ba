"""The reference's stored runs, exported and served: its probabilities come back through gRPC and REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from savedmodels.export import ExportOptions, export
from savedmodels.server.config import ModelConfig
from savedmodels.server.program import Server
from tests.golden_files import golden_runs
from tests.models.golden_runs import GoldenRun
from tests.savedmodels.server.conftest import READY_SECONDS, options


def forward_runs() -> list[Path]:
    """Of stored runs that differ only in what trains them (loss, optimizer, schedule), one: a server sees the rest."""
    found: dict[object, Path] = {}
    for path in golden_runs():
        found.setdefault(GoldenRun.load(path).dlrm_config(), path)
    return list(found.values())


RUNS = forward_runs()


@pytest.fixture(scope="module")
def golden_server(tmp_path_factory) -> Iterator[Server]:
    """Every stored run at its initial weights, a model each."""
    folder = tmp_path_factory.mktemp("golden")
    configs = []
    for path in RUNS:
        export(GoldenRun.load(path).model(), folder / path.stem, options=ExportOptions(signatures=("predict",)))
        configs.append(ModelConfig(name=path.stem, base_path=folder / path.stem))
    with Server(configs, options()) as running:
        assert running.wait_until_ready(READY_SECONDS)
        yield running


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_references_probabilities_come_back(golden_server, connect, path: Path):
    inputs, _, expected = next(GoldenRun.load(path).steps())
    columns = {"dense": inputs.pop("dense").numpy()}
    for name, bags in inputs.items():
        columns[name] = bags.flat_values.numpy()
        columns[f"{name}_row_lengths"] = bags.row_lengths().numpy()
    found = connect(golden_server, model=path.stem).predict(columns, signature="predict")
    np.testing.assert_allclose(found["probability"], expected["probability"], rtol=0, atol=1e-6)
