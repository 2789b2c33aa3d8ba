"""kill -9 at random moments: the script, with few moments; `tools/kill_resume.py` has twenty."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.kill_resume import differences

ROOT = Path(__file__).parents[2]


@pytest.mark.multiprocess
def test_killed_runs_end_bit_identical(tmp_path: Path) -> None:
    options = ["--moments", "2", "--kills", "1", "--rows", "3000", "--keep", str(tmp_path)]
    script = [sys.executable, "tools/kill_resume.py", *options]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 runs ended bit-identical" in done.stdout
    expected = tmp_path / "uninterrupted"
    assert not list(differences(expected, tmp_path / "moment-1"))
    # and it would tell, were one bit another
    changed = tmp_path / "changed"
    shutil.copytree(expected, changed)
    file = sorted((changed / "checkpoints").glob("step-*"))[-1] / "variables.npz"
    with np.load(file, allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    name = next(name for name in values if name.startswith("optimizer/") and values[name].size > 1)
    values[name].view(np.uint8).flat[0] ^= 1
    np.savez(file, allow_pickle=False, **values)
    assert list(differences(expected, changed)) == [name]
