"""At which address this process's TensorFlow server listens: at one, by a rule in front of the system's `bind`.

TensorFlow's server listens at every interface, whatever address it is given, and does what it is sent. The rule is a
library that must be there when the process starts (`LD_PRELOAD`; native/src/bind_address.cc); which port and address
it is for can be said later.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from tfdlrm.checks import quoted
from tfdlrm.native import build, plain

BIND = "TFDLRM_BIND"
"""`PORT ADDRESS` of the server's socket."""
PRELOAD = "LD_PRELOAD"


def resolve(host: str) -> str:
    """The address of a host's name, IPv4 where it has one.

    Raises:
        OSError: the name is unknown.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(f"host {quoted(host)} is unknown: {error.strerror}. Give an address of this machine.") from error
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def split_address(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    return why_not(address) is None


def why_not(address: str) -> str | None:
    """Why nobody answers at `host:port`; None where somebody does."""
    host, port = split_address(address)
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=2):
            return None
    except OSError as error:
        return (error.strerror or str(error)).lower()


def is_preloaded() -> bool:
    """Whether this process was started with the rule."""
    return plain.LIBRARY_NAME in os.environ.get(PRELOAD, "")


def preloading() -> dict[str, str]:
    """The environment of a process that is to have the rule.

    Raises:
        OSError: the library is not there and cannot be built.
    """
    try:
        library = plain.ensure_built()
    except build.BuildError as error:
        raise OSError(str(error)) from error
    return {PRELOAD: " ".join([str(library), *os.environ.get(PRELOAD, "").split()])}


def start_again(environment: Mapping[str, str], more: Sequence[str] = ()) -> NoReturn:
    """This program once more, in the same process, with further variables and flags."""
    sys.stdout.flush()
    command = [sys.executable, "-m", "tfdlrm", *sys.argv[1:], *more]
    os.execve(sys.executable, command, {**os.environ, **environment})


def bind_coordinator(address: str) -> None:
    """Has the server that TensorFlow is about to start here listen at `address` alone, or says that it will not.

    Args:
        address: host:port of the coordinator.

    Raises:
        OSError: the host is unknown, or something listens there.
    """
    host, port = split_address(address)
    if answers(address):
        raise OSError(
            f"the coordinator's address {address} is in use: perhaps another training runs there. Give chief another "
            "port, or leave it out on one machine."
        )
    if is_preloaded():
        os.environ[BIND] = f"{port} {resolve(host)}"
        return
    try:
        fix = f"Start this script with {PRELOAD}={preloading()[PRELOAD].split()[0]} and it listens at {host} alone."
    except OSError:
        fix = "Keep it behind a firewall."
    print(
        f"the coordinator listens at port {port} of every interface of this machine, and whoever reaches it can run "
        f"code here. {fix}",
        file=sys.stderr,
        flush=True,
    )
