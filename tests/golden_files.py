"""Which stored files there are: the copy in `tests/golden`, or another folder of that form, `TFDLRM_GOLDEN_DIR`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

DEFAULT = Path(__file__).parent / "golden"
GOLDEN = Path(os.environ.get("TFDLRM_GOLDEN_DIR", DEFAULT)).resolve()


def golden_files(pattern: str) -> list[Path]:
    """Stored files by pattern. Our own copy has every kind; another folder may hold some kinds only.

    Raises:
        FileNotFoundError: the folder is missing, holds nothing of any kind, or is our own and lacks this one.
    """
    if not any(GOLDEN.glob("*.npz")) and not any(GOLDEN.glob("*.json")):
        raise FileNotFoundError(f"{GOLDEN}: no golden files there. Set TFDLRM_GOLDEN_DIR to a folder that has them.")
    found = sorted(GOLDEN.glob(pattern))
    if not found and DEFAULT.resolve() == GOLDEN:
        raise FileNotFoundError(f"{GOLDEN}: no file {pattern} there.")
    return found


def golden_runs() -> list[Path]:
    """The stored training runs: the files with a `config`."""
    return [path for path in golden_files("*.npz") if _has_config(path)]


def _has_config(path: Path) -> bool:
    with np.load(path, allow_pickle=False) as stored:
        return "config" in stored.files
