"""Which code a pipeline ran: an input like any other, so that a change of it is no cache hit."""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from tfdlrm import __version__

_PACKAGES = ("tfdlrm", "savedmodels", "pipelines")
_SUFFIXES = (".py", ".cc", ".inc", ".h", ".c", ".yaml")


@functools.cache
def fingerprint() -> str:
    """Version and SHA-256 of the sources of tfdlrm, savedmodels and pipelines, as in `0.1.0+sha256.0123456789ab`."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        _add(digest, files(package), package)
    return f"{__version__}+sha256.{digest.hexdigest()[:12]}"


def _add(digest: hashlib._Hash, folder: Traversable, name: str) -> None:
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            _add(digest, entry, path)
        elif entry.name.endswith(_SUFFIXES):
            content = entry.read_bytes()
            digest.update(f"{path} {len(content)}\n".encode())
            digest.update(content)
