"""Where compiled code is kept: nothing that another user may have written is loaded."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfdlrm.native import cache
from tfdlrm.native.cache import CACHE_SETTING, StrangeCacheError, built_once, cache_dir, is_whole

OTHER_USER = 54321


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_SETTING, str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(text: str = "code"):  # type: ignore[no-untyped-def]
    return lambda target: target.write_text(text)


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a path another user's, as far as this process can see."""
    if os.geteuid() == 0:
        os.chown(path, OTHER_USER, OTHER_USER)
    else:
        monkeypatch.setattr(cache.os, "geteuid", lambda: OTHER_USER)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) & 0o022 for path in (folder, *folder.rglob("*"))}


def test_nobody_else_may_write_what_is_made_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        path = built_once(folder / "key" / "code.so", write())
    finally:
        os.umask(before)
    assert path.read_text() == "code"
    assert modes(folder) == {0}
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["code.so", "code.so.sha256", "lock"]
    assert built_once(path, write("other")).read_text() == "code"


@pytest.mark.parametrize("whose", ["cache", "cache/key"])
def test_a_folder_of_another_user_is_refused(folder: Path, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built_once(folder / "key" / "code.so", write())
    give_away(folder.parent / whose, monkeypatch)
    with pytest.raises(StrangeCacheError, match=r"belongs to user .*Set TFDLRM_NATIVE_CACHE to a folder"):
        built_once(path, write("other"))


@pytest.mark.parametrize("name", ["code.so", "code.so.sha256"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_library_of_another_user_is_made_again(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = built_once(folder / "key" / "code.so", write("theirs"))
    give_away(path.parent / name, monkeypatch)
    assert not is_whole(path)
    assert built_once(path, write("ours")).read_text() == "ours"
    assert path.stat().st_uid == os.geteuid()


def test_a_library_that_others_may_write_is_made_again(folder: Path) -> None:
    path = built_once(folder / "key" / "code.so", write("before"))
    path.chmod(0o777)
    assert built_once(path, write("after")).read_text() == "after"


def test_a_link_is_no_library_and_no_folder(folder: Path, tmp_path: Path) -> None:
    path = built_once(folder / "key" / "code.so", write("before"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert built_once(path, write("after")).read_text() == "after"
    (folder / "other").symlink_to(folder / "key")
    with pytest.raises(StrangeCacheError, match="other is no folder"):
        built_once(folder / "other" / "code.so", write())


def test_a_lock_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (folder / "key").mkdir(parents=True)
    (folder / "key" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StrangeCacheError, match="lock: a link or a device, where a lock belongs"):
        built_once(folder / "key" / "code.so", write())
    assert (tmp_path / "precious").read_text() == "x"


def test_a_folder_that_others_could_write_is_closed(folder: Path) -> None:
    path = built_once(folder / "key" / "code.so", write())
    folder.chmod(0o777)
    path.parent.chmod(0o775)
    built_once(path, write())
    assert modes(folder) == {0}


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (CACHE_SETTING, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache.Path, "home", unknown)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    assert cache_dir() == tmp_path / f"tfdlrm-{os.geteuid()}" / "native"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # of no meaning, says its specification
    assert cache_dir() == tmp_path / f"tfdlrm-{os.geteuid()}" / "native"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "tfdlrm" / "native"


@pytest.mark.multiprocess
def test_two_versions_share_a_cache_at_once(tmp_path: Path) -> None:
    """With neither HOME nor TMPDIR, as in a bare container."""
    code = "from tfdlrm.native import plain; assert plain.functions() is not None; print(plain.library_path())"
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment |= {CACHE_SETTING: str(tmp_path / "cache"), "TFDLRM_NATIVE": "require"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**environment, "TFDLRM_NATIVE_CXXFLAGS": f"-DVERSION={version}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in (1, 2)
    ]
    paths = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert len(set(paths)) == 2
    assert all(is_whole(Path(path)) for path in paths)
