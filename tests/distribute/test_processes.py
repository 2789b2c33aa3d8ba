"""What the coordinator finds out about the processes of its cluster, and refuses."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.distribute.in_process import run_script
from tfdlrm.distribute.fingerprint import parse_available

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


def test_a_training_without_workers_ends(results: dict[str, Any]) -> None:
    assert re.search(r"no worker is left: worker 0 at 127\.0\.0\.1:\d+\. Waiting 1 s for one", results["said of it"])
    assert results["worker lost"].startswith("WorkersLostError: no worker is left for 1 s: worker 0 at 127.0.0.1:")


def test_a_worker_makes_its_rows_itself(results: dict[str, Any]) -> None:
    found = results["read"]
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-4)
    there, here = found["calls"]
    assert there == []  # the model was built by rows that were opened by their origin
    assert here == [[0, 40], [40, 45]]  # pieces of the one process: five whole batches and the rest


def test_bad_rows_are_named_plainly(results: dict[str, Any]) -> None:
    assert "there is no batch in the data. Give at least one row" in results["no rows"]
    assert re.match(
        r"InvalidArgumentError: (\S+ )?feature 'user' \(table 'user'\): id 100 in row 0", results["out of range"]
    )


@pytest.mark.parametrize(
    ("machine", "limit", "used", "expected"),
    [
        (b"MemTotal: 9 kB\nMemAvailable:   2048 kB\n", b"", b"", 2048 * 1024),
        (b"MemAvailable: 2048 kB\n", b"max\n", b"anon 5\n", 2048 * 1024),
        (b"MemAvailable: 2048 kB\n", b"1000000\n", b"anon 400000\nfile 500000\n", 600_000),
        (b"MemAvailable: 2048 kB\n", b"1000\n", b"anon 4000\n", 0),
        (b"", b"", b"", None),
    ],
)
def test_a_containers_limit_counts(machine: bytes, limit: bytes, used: bytes, expected: int | None) -> None:
    assert parse_available(machine, limit, used) == expected


def test_a_process_of_another_version_or_cluster_is_refused(results: dict[str, Any]) -> None:
    assert results["same"] == ""
    assert re.match(
        r"ValueError: ps 0 at 127\.0\.0\.1:\d+: tfdlrm .* runs there, and tfdlrm 9\.9 here", results["version"]
    )
    assert "it was started with other addresses of workers and servers" in results["other"]
