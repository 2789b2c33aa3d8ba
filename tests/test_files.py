"""One holder at a time, and none when it has let go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys

import pytest

from tfdlrm.files import appear, partial_folder, try_lock


def test_a_lock_is_held_until_its_file_is_closed(tmp_path) -> None:
    file = tmp_path / ".lock"
    with try_lock(file):
        assert try_lock(file) is None
    with try_lock(file) as again:
        assert again is not None


def test_a_folder_is_partial_until_it_is_renamed(tmp_path) -> None:
    with partial_folder(tmp_path / "new" / "3") as partial:
        (partial / "file").write_text("x")
        assert [entry.name for entry in (tmp_path / "new").iterdir()] == [partial.name]
        partial.rename(tmp_path / "new" / "3")
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["3"]
    with pytest.raises(ZeroDivisionError), partial_folder(tmp_path / "new" / "4") as partial:
        raise ZeroDivisionError
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["3"]


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path, capsys) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    alive = f".3.{os.getppid()}.new"  # not locked yet
    for name in (".3.1", f".3.{ended.pid}.new", alive, ".3.x", ".4.1", "3.1"):
        (tmp_path / name).mkdir()
    (tmp_path / ".3.7").write_text("no folder")
    (tmp_path / ".3.8").symlink_to(tmp_path / ".4.1")
    with try_lock_folder(tmp_path / ".3.9"), partial_folder(tmp_path / "3") as partial:
        left = sorted(entry.name for entry in tmp_path.iterdir())
        assert left == sorted([".3.7", ".3.8", ".3.9", ".3.x", ".4.1", "3.1", alive, partial.name])
    told = capsys.readouterr().err
    assert told.count("which a process that was killed had left half written") == 2
    assert str(tmp_path / ".3.1") in told


@contextlib.contextmanager
def try_lock_folder(folder):
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_of_two_that_write_one_folder_one_is_told(tmp_path) -> None:
    with partial_folder(tmp_path / "3") as partial:
        (partial / "mine").write_text("x")
        (tmp_path / "3").mkdir()
        (tmp_path / "3" / "theirs").write_text("x")
        with pytest.raises(FileExistsError, match="3: another process has written it meanwhile"):
            appear(partial, tmp_path / "3")
    assert [entry.name for entry in (tmp_path / "3").iterdir()] == ["theirs"]


def test_a_lock_that_is_something_else_is_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match=rf"{name}: a .* where a lock belongs. Remove it"):
            try_lock(tmp_path / name)
    assert not (tmp_path / "outside").exists()
