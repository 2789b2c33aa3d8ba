"""What `make check` runs."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

from tools.changed_tests import changed_files, paths_of_tests


def test_a_change_means_the_tests_that_mirror_it() -> None:
    files = ["tfdlrm/layers/mlp.py", "tfdlrm/layers/__init__.py", "tests/layers/test_mlp.py", "savedmodels/export.py"]
    assert paths_of_tests(files) == ["tests/test_architecture.py", "tests/layers", "tests/savedmodels"]
    files = ["tfdlrm/schema.py", "tests/savedmodels/small_model.py", "docs/engine.md", "LICENSE", "tests/reference.py"]
    assert paths_of_tests(files) == [
        "tests/test_architecture.py",
        "tests/test_schema.py",
        "tests/savedmodels",
        "tests/test_docs.py",
    ]
    assert paths_of_tests(["tfdlrm/presets/gone.yaml"]) == ["tests/test_architecture.py"]


def test_tests_of_pipelines_need_tfx(monkeypatch) -> None:
    files = ["pipelines/config.py", "tests/pipelines/test_config.py"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert paths_of_tests(files) == ["tests/test_architecture.py"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert paths_of_tests(files) == ["tests/test_architecture.py", "tests/pipelines"]


def test_changes_are_those_since_the_last_commit_on_main(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    for name in ("kept", "edited"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "--message", "first")
    git("checkout", "-b", "work")
    (tmp_path / "committed").write_text("1")
    git("add", ".")
    git("commit", "--message", "second")
    (tmp_path / "edited").write_text("2")
    (tmp_path / "new").write_text("1")
    assert sorted(changed_files(tmp_path)) == ["committed", "edited", "new"]
