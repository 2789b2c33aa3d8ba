"""What a server is started with."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from tfdlrm.checks import quoted

LOOPBACK = "127.0.0.1"
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Limits and addresses of a server.

    Args:
        host: to bind; an address of other machines needs `allow_any_address`.
        grpc_port, rest_port: 0 for any that is free. TensorFlow Serving's defaults.
        allow_any_address: bind an address that other machines reach. There is no authentication.
        max_message_bytes: of a request, and of one of its tensors.
        max_rows: of a request.
        request_seconds: a request is answered with DEADLINE_EXCEEDED after this, or its own shorter deadline.
        max_in_flight: requests at once; more are answered with UNAVAILABLE.
        num_threads: that call models at once. Each call uses TensorFlow's own threads, too.
        max_batch_rows: put requests together to batches of so many rows; None for not at all.
        max_batch_wait_microseconds: a request waits so long for others.
        poll_seconds: between two looks at the folders.
        load_seconds: a version that is not loaded after this is given up, and the next one gets its turn.
        max_version_bytes: a version whose files have more is refused; None for the machine's memory.
        drain_seconds: running requests may take so long after SIGTERM.
        idle_seconds: an HTTP connection is closed after so long without a request, or within one without data.
        enable_cors_support: let pages of any origin ask over REST, from browsers; TensorFlow Serving's flag.

    Raises:
        ValueError: an option is out of its range, or `host` is not of the loopback interface.
    """

    host: str = LOOPBACK
    grpc_port: int = 8500
    rest_port: int = 8501
    allow_any_address: bool = False
    max_message_bytes: int = 64 * MEBIBYTE
    max_rows: int = 50_000
    request_seconds: float = 30.0
    max_in_flight: int = 256
    num_threads: int = max(4, os.cpu_count() or 1)
    max_batch_rows: int | None = None
    max_batch_wait_microseconds: int = 1000
    poll_seconds: float = 1.0
    load_seconds: float = 600.0
    max_version_bytes: int | None = None
    drain_seconds: float = 30.0
    idle_seconds: float = 60.0
    enable_cors_support: bool = False

    def __post_init__(self) -> None:
        for name in ("grpc_port", "rest_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ValueError(f"{name}={getattr(self, name)} is no port. Give 1 to 65535, or 0 for any free one.")
        for name in ("max_message_bytes", "max_rows", "max_in_flight", "num_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not possible. Give 1 or more.")
        for name in ("request_seconds", "poll_seconds", "load_seconds", "idle_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not possible. Give more than 0.")
        for name in ("max_batch_rows", "max_version_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not possible. Give 1 or more, or none.")
        for name in ("max_batch_wait_microseconds", "drain_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is not possible. Give 0 or more.")
        if not self.allow_any_address and not _is_loopback(self.host):
            raise ValueError(
                f"host {quoted(self.host)} is reached from other machines, and this server has no authentication. "
                f"Give {LOOPBACK}, or allow it with --allow-any-address."
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
