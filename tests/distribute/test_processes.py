"""What the coordinator finds out about the processes of its cluster, and refuses."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.distribute.in_process import run_script

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads(run_script("tests.distribute.processes_run"))


def test_without_kernels_on_a_server_it_goes_on_and_says_so_once(results: dict[str, Any]) -> None:
    assert results["said"].count("has no native kernels") == 1
    assert re.search(r"ps 0 at 127\.0\.0\.1:\d+ has no native kernels", results["said"])
    assert results["setting"] == "off"
    assert np.isfinite(results["loss"]).all()


def test_tables_larger_than_the_servers_are_refused(results: dict[str, Any]) -> None:
    assert results["there"] > 10**8
    refused = results["too large"]
    # 4e9 rows and accumulators of 64 float32 each
    assert "the tables' rows and slots take 2.0 TB: 2.0 TB of them on 127.0.0.1 (ps 0), where" in refused
    assert "of memory are available. Add parameter servers" in refused


def test_a_process_of_another_version_or_cluster_is_refused(results: dict[str, Any]) -> None:
    assert results["same"] == ""
    assert re.match(
        r"ValueError: ps 0 at 127\.0\.0\.1:\d+: tfdlrm .* runs there, and tfdlrm 9\.9 here", results["version"]
    )
    assert "it was started with other addresses of workers and servers" in results["other"]
