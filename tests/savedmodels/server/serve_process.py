"""`tfdlrm serve` as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 120.0  # importing TensorFlow takes 3 to 8 s, more on a busy machine
STOP_SECONDS = 60.0
# the program without its installed entry points, which a test of the working tree cannot count on
CODE = """
import sys
from savedmodels.serve_commands import add_query, add_serve
from tfdlrm.cli.program import main
sys.exit(main(sys.argv[1:], [add_serve, add_query]))
"""


def command(*arguments: str, prelude: str = "") -> list[str]:
    """A command line of the program; `prelude` is code that runs before it."""
    return [sys.executable, "-c", prelude + CODE, *arguments]


class ServeProcess:
    """A running server, on ports that were free.

    Args:
        arguments: of `tfdlrm serve`, without ports.
        log: file for what it writes to stderr.
        prelude: code that runs before the program.

    Raises:
        RuntimeError: it did not start; the message holds what it wrote.
    """

    def __init__(self, arguments: Sequence[str], log: Path, prelude: str = "") -> None:
        self._log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command("serve", *arguments, "--grpc-port", "0", "--rest-port", "0", prelude=prelude),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.grpc_port = int(self.wait_for(r"gRPC: \S+:(\d+)"))
        self.rest_port = int(self.wait_for(r"REST: http://\S+:(\d+)"))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """The first group (or all) of the first line that matches."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                for line in self.lines:
                    if found := re.search(pattern, line):
                        return found.group(1) if found.groups() else found.group(0)
                if not self._reader.is_alive() or time.monotonic() > deadline:
                    self.process.kill()
                    raise RuntimeError(f"no line {pattern!r} in {self.lines}; stderr: {self._log.read_text()[-2000:]}")
                self._changed.wait(0.5)

    def resident_bytes(self) -> int:
        """Memory of the process (VmRSS)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) * 1024

    def num_threads(self) -> int:
        """Threads of the process."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def num_files(self) -> int:
        """Open files and sockets of the process."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        if self.process.stdout.closed:
            return self.process.returncode
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        return code

    def __enter__(self) -> ServeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
