"""One holder at a time, and none when it has let go."""

from __future__ import annotations

from tfdlrm.file_lock import try_lock


def test_a_lock_is_held_until_its_file_is_closed(tmp_path) -> None:
    file = tmp_path / ".lock"
    with try_lock(file):
        assert try_lock(file) is None
    with try_lock(file) as again:
        assert again is not None
