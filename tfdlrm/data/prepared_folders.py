"""How a folder of prepared data is told from others; nothing here needs pyarrow."""

from __future__ import annotations

import os
from pathlib import Path

MANIFEST_FILE = "manifest.json"


def is_prepared(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of prepared data, or the folder of one of its parts."""
    path = Path(path)
    return (path / MANIFEST_FILE).is_file() or (path.is_dir() and (path.parent / MANIFEST_FILE).is_file())
