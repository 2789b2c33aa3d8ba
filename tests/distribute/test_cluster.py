"""Where a cluster comes from, and what is refused."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tfdlrm.distribute import LocalCluster, ServerLostError, dispatch
from tfdlrm.distribute.cluster import TF_CONFIG, Cluster, task_from_environment

JOBS = {"worker": ["a:1", "b:2"], "ps": ["[::1]:3"]}
CLUSTER = Cluster(workers=("a:1", "b:2"), parameter_servers=("[::1]:3",))


def test_one_cluster_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cluster.yaml").write_text("cluster:\n  worker: [a:1, b:2]\n  ps: ['[::1]:3']\n")
    CLUSTER.save(tmp_path / "saved.yaml")
    monkeypatch.setenv(TF_CONFIG, CLUSTER.tf_config("worker", 1))
    for source in (CLUSTER, JOBS, {"cluster": JOBS}, tmp_path / "cluster.yaml", str(tmp_path / "saved.yaml"), None):
        assert Cluster.load(source) == CLUSTER
    assert task_from_environment() == ("worker", 1)
    named = Cluster.load({**JOBS, "chief": ["c:4"]})
    assert named.coordinator == "c:4"
    assert Cluster.load(named.jobs()) == named


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"worker": ["a:1"]}, "cluster: there is no ps. Give at least one address"),
        ({"worker": [], "ps": ["a:1"]}, "cluster: there is no worker"),
        ({"worker": ["a"], "ps": ["b:1"]}, "cluster: 'a' is no address. Write host:port"),
        ({"worker": ["a:0"], "ps": ["b:1"]}, "'a:0' is no address"),
        ({"worker": ["a:65536"], "ps": ["b:1"]}, "'a:65536' is no address"),
        ({"worker": ["a:1"], "ps": ["a:1"]}, "'a:1' is given twice"),
        ({"workers": ["a:1"], "ps": ["b:1"]}, "cluster: unknown job 'workers', did you mean 'worker'?"),
        ({"worker": "a:1", "ps": ["b:1"]}, "cluster: worker is 'a:1', not a list of addresses"),
        ({**JOBS, "chief": ["c:1", "c:2"]}, "chief has 2 addresses"),
        ({"cluster": JOBS, "tasks": 1}, "unknown key 'tasks'"),
        ({"cluster": [1]}, "the cluster is list, not a mapping"),
    ],
)
def test_what_is_no_cluster_is_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Cluster.load(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no cluster: TF_CONFIG is not set"),
        ("{", "TF_CONFIG is not JSON"),
        ("[]", "TF_CONFIG has no 'cluster'"),
        (json.dumps({"cluster": JOBS, "tsk": {}}), "TF_CONFIG: unknown key 'tsk'"),
    ],
)
def test_a_bad_environment_is_named(text: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TF_CONFIG, raising=False)
    if text is not None:
        monkeypatch.setenv(TF_CONFIG, text)
    with pytest.raises(ValueError, match=re.escape(message)):
        Cluster.load()


@pytest.mark.parametrize(
    "task", [None, {"type": "evaluator", "index": 0}, {"type": "ps", "index": -1}, {"type": "ps", "index": "0"}]
)
def test_a_bad_task_is_named(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TF_CONFIG, json.dumps({"cluster": JOBS, "task": task}))
    with pytest.raises(ValueError, match=r"TF_CONFIG: task"):
        task_from_environment()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such cluster file"):
        Cluster.load(tmp_path / "nowhere.yaml")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xe6\x00\xff")
    with pytest.raises(ValueError, match=r"binary\.yaml: is no UTF-8 text"):
        Cluster.load(tmp_path / "binary.yaml")
    with pytest.raises(IsADirectoryError, match=r"is a folder\. Give a YAML file"):
        Cluster.load(tmp_path)


def test_a_task_without_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TF_CONFIG, json.dumps({"cluster": JOBS, "task": {"type": "ps"}}))
    with pytest.raises(ValueError, match=r"task index is None\. Give the number of the process in its job"):
        task_from_environment()


def test_a_process_that_dies_is_told_of() -> None:
    said: list[tuple[str, str]] = []
    local = LocalCluster(1, 1, show=lambda *line: said.append(line), environment={"PATH": ""})
    with local:
        local.processes["ps 0"].send_signal(signal.SIGBUS)
        for process in local.processes.values():
            process.wait()
        local._readers[1].join()
    assert ("ps 0", "ended by SIGBUS: a file that it reads was cut short") in said


def test_only_the_server_that_is_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one whose address is the beginning of the other's."""
    monkeypatch.setattr(dispatch, "answers", lambda _: True)
    cluster = Cluster(workers=("a:1",), parameter_servers=("127.0.0.1:3938", "127.0.0.1:39380"))
    text = "from /job:ps/task:1: failed to connect; last error: ipv4:127.0.0.1:39380: Connection refused"

    def lose() -> None:
        with dispatch.explaining(cluster), dispatch.explaining(cluster):
            raise tf.errors.UnavailableError(None, None, text)

    with pytest.raises(ServerLostError, match=r"^ps 1 at 127\.0\.0\.1:39380 is gone: ") as raised:
        lose()
    assert isinstance(raised.value.__cause__, tf.errors.UnavailableError)
