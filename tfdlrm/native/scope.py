"""Where the kernels may be used: inside training, evaluation and prediction steps, and nowhere else.

A model can be traced for export at any time, and an exported model must hold stock ops only. Steps are never
exported, so they open a region, and outside of one every layer uses TensorFlow's own ops.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from tfdlrm.native import loader

_region = threading.local()


@contextlib.contextmanager
def native_kernels(allowed: bool = True) -> Iterator[None]:
    """A region whose ops are run and never exported. `allowed=False` shuts a region inside of another one."""
    before = getattr(_region, "open", False)
    _region.open = allowed
    try:
        yield
    finally:
        _region.open = before


def in_region() -> bool:
    """Whether this thread is inside such a region."""
    return getattr(_region, "open", False)


def native_ops() -> Any | None:
    """The generated op functions inside a region; None outside, or where the kernels cannot be had."""
    return loader.library() if in_region() else None
