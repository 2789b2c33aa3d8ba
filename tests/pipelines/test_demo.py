"""The demo removes what it wrote itself, and nothing else; `make demo-tfx` runs the whole of it."""

from __future__ import annotations

import pytest

from pipelines.demo import _empty
from tfdlrm.training.demo import MARKER


def test_folders_of_others_are_left_alone(tmp_path) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    for folder in (root, data):
        folder.mkdir()
        (folder / "mine").touch()
        with pytest.raises(FileExistsError, match=f"{folder.name}: holds files that are not the demo's"):
            _empty(root, data)
        assert (folder / "mine").exists()
        (folder / "mine").unlink()


def test_what_the_demo_wrote_is_written_anew(tmp_path) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    _empty(root, data)
    (root / "metadata.sqlite").touch()
    data.mkdir()
    (data / "rows.csv").touch()
    _empty(root, data)
    assert [path.name for path in root.iterdir()] == [MARKER]
