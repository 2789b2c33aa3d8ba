"""`tfdlrm server` as a process: where it listens, what it refuses, how it ends."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfdlrm.cli.program import main
from tfdlrm.distribute import binding
from tfdlrm.distribute.cluster import TF_CONFIG, Cluster
from tfdlrm.distribute.local_cluster import LocalCluster, reserve_port, reserved_address

ROOT = Path(__file__).parents[2]
END_SECONDS = 60.0


@pytest.fixture
def cluster_file(tmp_path: Path) -> Iterator[Path]:
    """A worker and a server on ports that are free."""
    held = [reserve_port() for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    Cluster((addresses[0],), (addresses[1],)).save(tmp_path / "cluster.yaml")
    yield tmp_path / "cluster.yaml"
    for each in held:
        each.close()


def listeners(port: int) -> list[str]:
    """Addresses of this machine that are listened at, as the kernel writes them."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A" and int(address.rpartition(":")[2], 16) == port:
                found.append(address.rpartition(":")[0])
    return found


@pytest.mark.multiprocess
def test_a_local_cluster_listens_at_the_loopback_address_alone_and_ends_with_its_parent() -> None:
    code = (
        "import sys, time\n"
        "from tfdlrm.distribute.local_cluster import LocalCluster\n"
        "with LocalCluster(1, 1) as cluster:\n"
        "    print(*cluster.workers, *cluster.parameter_servers, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        ports = [int(address.rpartition(":")[2]) for address in parent.stdout.readline().split()]
        seen = []
        for line in parent.stderr:
            if match := re.match(r"\[(worker|ps) 0\] tfdlrm server: \1 0 at 127\.0\.0\.1:(\d+)$", line.strip()):
                seen.append((match[1], int(match[2])))
            if len(seen) == 2:
                break
        assert sorted(seen) == [("ps", ports[1]), ("worker", ports[0])]
        loopback = {"0000000000000000FFFF00000100007F", "0100007F"}
        for port in ports:
            assert len(listeners(port)) == 1
            assert set(listeners(port)) <= loopback
        parent.kill()
    deadline = time.monotonic() + END_SECONDS
    while any(map(listeners, ports)):
        assert time.monotonic() < deadline, "a server outlived its parent"
        time.sleep(0.1)


@pytest.mark.multiprocess
def test_a_local_cluster_ends_its_processes() -> None:
    lines: list[tuple[str, str]] = []
    started = threading.Event()

    def show(who: str, line: str) -> None:
        lines.append((who, line))
        if line.startswith("tfdlrm server: ps 0 at"):
            started.set()

    local = LocalCluster(1, 1, show=show)
    with local:
        assert started.wait(120), lines
    assert local.processes["ps 0"].returncode == 0
    assert not [process for process in local.processes.values() if process.poll() is None]


@pytest.mark.multiprocess
def test_the_coordinator_too_listens_at_one_address_or_says_that_it_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(binding.PRELOAD, "")
    monkeypatch.setenv(binding.BIND, "")
    with reserved_address() as address:
        binding.bind_coordinator(address)
        port = address.rpartition(":")[2]
        said = capsys.readouterr().err
        assert f"the coordinator listens at port {port} of every interface of this machine" in said
        library = re.search(r"Start this script with LD_PRELOAD=(\S+) and it listens at 127\.0\.0\.1 alone", said)
        assert library, said
        assert not os.environ[binding.BIND]
        code = (
            "import os, sys, time\n"
            "import tensorflow as tf\n"
            "from tfdlrm.distribute import binding\n"
            "binding.bind_coordinator(sys.argv[1])\n"
            "tf.distribute.Server(tf.train.ClusterSpec({'chief': [sys.argv[1]]}), job_name='chief', task_index=0)\n"
            "print('there', flush=True)\n"
            "time.sleep(600)\n"
        )
        command = [sys.executable, "-c", code, address]
        environment = {**os.environ, binding.PRELOAD: library[1]}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as script:
            assert script.stdout is not None
            assert script.stdout.readline() == "there\n"
            assert listeners(int(port)) == ["0000000000000000FFFF00000100007F"]
            script.kill()


def run(*arguments: str) -> int:
    return main(["server", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--job", "worker", "--task", "1"], "worker 1 is not in the cluster, which has 1"),
        (["--job", "ps", "--task", "-1"], "ps -1 is not in the cluster"),
        (["--job", "ps"], "give --cluster, --job and --task, or none of them"),
        (["--job", "ps", "--task", "0", "--bind", "0.0.0.0"], "ps 0: 0.0.0.0 lets every machine"),
        (["--job", "ps", "--task", "0", "--bind", "::"], "lets every machine"),
        (["--job", "ps", "--task", "0", "--bind", "192.0.2.1"], "192.0.2.1:"),
        (["--job", "ps", "--task", "0", "--bind", "no-such-host.invalid"], "host 'no-such-host.invalid' is unknown"),
    ],
)
def test_what_cannot_be_is_named(
    arguments: list[str], message: str, cluster_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--cluster", str(cluster_file), *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_second_process_of_a_task_is_refused(cluster_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = Cluster.load(cluster_file).parameter_servers[0]
    port = int(address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port), reuse_port=False):
        assert run("--cluster", str(cluster_file), "--job", "ps", "--task", "0") == 2
    error = capsys.readouterr().err
    assert f"ps 0: {address} cannot be bound: Address already in use. Perhaps this server runs already" in error


def test_without_a_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TF_CONFIG, raising=False)
    assert run() == 2
    assert "TF_CONFIG is not set" in capsys.readouterr().err
    assert os.environ.get("LD_PRELOAD") is None
