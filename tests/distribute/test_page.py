"""The script of docs/parameter_servers.md, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
