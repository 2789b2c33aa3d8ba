"""Processes with TensorFlow imported and nothing run yet, forked from one that waits: each start saves four seconds.

For tests that need a process of their own, and not its start.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tensorflow", "keras"])


class Forked:
    """A script that runs in such a process.

    Args:
        code: the script.
        arguments: its `sys.argv[1:]`.
        environment: of the process; None for this one's.
    """

    def __init__(self, code: str, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "script.py").write_text(code)
        self._process = _context.Process(
            target=_main, args=(str(folder), [*map(str, arguments)], dict(environment or os.environ))
        )
        self._process.start()

    def wait(self) -> subprocess.CompletedProcess[str]:
        """The end of it, and all that it wrote."""
        self._process.join()
        out, err = ((Path(self._folder.name) / name).read_text() for name in ("out", "err"))
        self._folder.cleanup()
        assert self._process.exitcode is not None
        return subprocess.CompletedProcess([], self._process.exitcode, out, err)


def _main(folder: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    script = os.path.join(folder, "script.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
