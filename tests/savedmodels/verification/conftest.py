"""An export to corrupt, written once, and a way to look at it without a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from savedmodels.verification import c_program, fresh_process
from tests.savedmodels.verification.tiny_exports import write_tiny_export


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / "1"
    write_tiny_export(folder)
    return folder


@pytest.fixture
def version(pristine, tmp_path) -> Path:
    """A copy to corrupt."""
    return Path(shutil.copytree(pristine, tmp_path / "exports" / "1"))


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """The fresh process's work is done here, where TensorFlow is imported already; other tests start the process."""

    def finish(version_folder: Path, results: Path) -> dict[str, Any]:
        return json.loads(json.dumps(fresh_process.examine(version_folder, results)))

    monkeypatch.setattr(fresh_process, "start", lambda version_folder, results: version_folder)
    monkeypatch.setattr(fresh_process, "finish", finish)


@pytest.fixture(scope="session")
def program() -> Path:
    """The C program; these tests need a C compiler, as the tests of the kernels need one for C++."""
    return c_program.ensure_built()
