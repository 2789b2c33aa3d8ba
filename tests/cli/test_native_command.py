"""`tfdlrm native`: builds ahead of time, says what is there, and why it could not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfdlrm.cli import main
from tfdlrm.native import loader, plain


def test_build_prints_the_libraries_that_will_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["native", "build"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [loader.library_path(), plain.library_path()]
    assert all(path.is_file() for path in paths)


def test_show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(loader.CACHE_SETTING, str(tmp_path))
    monkeypatch.setenv(loader.SETTING, "require")
    assert main(["native", "show"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path) in shown
    assert "require" in shown
    assert "no, it is built on first use" in shown


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("/no/such/compiler", "no C++ compiler"), ("/bin/false", "false failed")],
)
def test_a_build_that_fails_says_why(
    compiler: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv(loader.CACHE_SETTING, str(tmp_path))
    assert main(["native", "build"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(tmp_path) in error
    assert not list(tmp_path.rglob("*.so"))


def test_a_place_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    # --cache goes into the environment of the process
    monkeypatch.setenv(loader.CACHE_SETTING, "")
    assert main(["native", "build", "--cache", str(tmp_path / "file" / "below")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
