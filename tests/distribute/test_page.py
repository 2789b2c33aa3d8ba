"""The script and the manifest of docs/parameter_servers.md, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfdlrm.cli.program import build_parser, own_commands
from tfdlrm.distribute.cluster import Cluster
from tfdlrm.yaml_text import parse_yaml

PAGE = Path(__file__).parents[2] / "docs" / "parameter_servers.md"


@pytest.mark.multiprocess
def test_the_script_gives_the_loss_of_one_machine(tmp_path: Path) -> None:
    (script,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *reasons, losses = done.stdout.splitlines()
    cluster, alone = map(float, losses.split())
    assert cluster == pytest.approx(alone, rel=1e-5)
    assert any(reason.startswith("user: 10000 rows cut into 2 ranges") for reason in reasons), reasons


def test_the_manifest_names_one_cluster_and_commands_that_there_are() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(block)}
    cluster = Cluster.load(parse_yaml(found["ConfigMap", "tfdlrm-cluster"]["data"]["cluster.yaml"], "manifest"))
    service = found["Service", "tfdlrm"]
    servers = found["StatefulSet", "ps"]["spec"]
    job = found["Job", "coordinator"]["spec"]["template"]["spec"]
    (port,) = (one["port"] for one in service["spec"]["ports"])
    assert servers["serviceName"] == service["metadata"]["name"] == job["subdomain"]
    assert cluster.parameter_servers == tuple(f"ps-{k}.tfdlrm:{port}" for k in range(servers["replicas"]))
    assert cluster.workers == tuple(f"worker-{k}.tfdlrm:{port}" for k in range(2))
    assert cluster.coordinator == f"{job['hostname']}.{job['subdomain']}:{port}"
    for pod in (servers["template"], found["Job", "coordinator"]["spec"]["template"]):
        assert pod["metadata"]["labels"].items() >= service["spec"]["selector"].items()
        (container,) = pod["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
        script = container["command"][-1].replace("${HOSTNAME##*-}", "1").replace("$resume", "--resume")
        (words,) = re.findall(r"exec tfdlrm (.*)", script.replace("\\\n", " "))
        parsed = build_parser(own_commands()).parse_args(shlex.split(words))
        assert parsed.cluster == "/etc/tfdlrm/cluster.yaml"
    assert parsed.resume
