"""Running a test with the native kernels and again without them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tfdlrm.native import loader

NATIVE = "native"
TENSORFLOW = "tensorflow"


@contextlib.contextmanager
def kernels(which: str) -> Iterator[None]:
    """With `TENSORFLOW`, as if the kernels could not be had; with `NATIVE`, they must be there."""
    if which == NATIVE:
        assert loader.library() is not None, "the native kernels could not be built here"
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "library", lambda: None)
        yield


@pytest.fixture(scope="module", params=[NATIVE, TENSORFLOW])
def both_kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """For `pytestmark = pytest.mark.usefixtures("both_kernels")`: the whole module runs twice."""
    with kernels(request.param):
        yield request.param
