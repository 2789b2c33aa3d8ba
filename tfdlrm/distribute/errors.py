"""What can go wrong with a cluster."""

from __future__ import annotations


class ServerLostError(RuntimeError):
    """A parameter server is gone, and with it rows that were trained since the last checkpoint."""


class WorkersLostError(RuntimeError):
    """No worker is left to train on."""
