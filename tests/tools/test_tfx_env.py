"""Where the environment with TFX is made, and what is said where it cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools import tfx_env

DEB822 = """Types: deb
# http://snapshot.example.org/archive/debian/20250520T000000Z
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates

Types: deb
URIs: http://mirror.example.org/debian-security
"""
ONE_LINE = """# deb http://old.example.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/x.gpg] https://other.example.org/debian bookworm main
"""


def test_the_mirror_is_that_of_apt() -> None:
    assert tfx_env.mirror_of(DEB822) == "http://mirror.example.org/debian"
    assert tfx_env.mirror_of(ONE_LINE) == "https://other.example.org/debian"
    assert tfx_env.mirror_of("URIs: http://mirror.example.org/debian-security\n") is None
    assert tfx_env.mirror_of("") is None


@pytest.fixture
def elsewhere(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("TFDLRM_TFX_DIR", str(tmp_path))
    monkeypatch.setattr(tfx_env, "has_glibc", lambda: False)
    return tmp_path


def test_an_environment_is_kept_by_what_it_is_made_of(elsewhere, monkeypatch) -> None:
    first = tfx_env.folder()
    assert first.parent == elsewhere
    checkout = elsewhere / "checkout"
    checkout.mkdir()
    (checkout / "setup.cfg").write_text("[metadata]\n")
    monkeypatch.setattr(tfx_env, "CHECKOUT", checkout)
    assert tfx_env.folder() != first
    made = tfx_env.folder()
    made.mkdir()
    assert tfx_env.make() == made  # nothing is run


def test_one_line_says_why_it_cannot_be_made(elsewhere, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match=r"older than 2\.39, which TFX needs, .* takes root") as caught:
        tfx_env.make()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tfx_env.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="no debootstrap"):
        tfx_env.make()
    assert not any(entry.is_dir() and entry.suffix != ".partial" for entry in elsewhere.iterdir())


def test_leftovers_and_unused_environments_go(elsewhere, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name, age in (("old", 8 * 24 * 3600), ("new", 3600), ("killed.partial", 0)):
        (elsewhere / name).mkdir()
        when = os.stat(elsewhere / name).st_mtime - age
        os.utime(elsewhere / name, (when, when))
    with pytest.raises(SystemExit):
        tfx_env.make()
    assert (elsewhere / "new").is_dir()
    assert not (elsewhere / "old").exists()
    assert not (elsewhere / "killed.partial").exists()


def test_commands_keep_their_words(elsewhere) -> None:
    command = tfx_env._inside(elsewhere / "root", ["python", "-c", "print('a b')"])
    assert command[:4] == ["unshare", "--mount", "sh", "-e"]
    assert command[-1].splitlines()[-1].startswith(f"exec chroot {elsewhere}/root sh -c ")
    assert sum("mount --bind" in line for line in command[-1].splitlines()) == 3
