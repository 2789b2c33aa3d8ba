"""A version that hangs, is too large or holds no files is refused by name, and stops neither the others nor the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from savedmodels.server import loading
from savedmodels.server.config import ModelConfig
from savedmodels.server.folders import refuse_files
from savedmodels.server.loading import Load, LoadedModel
from tests.savedmodels.server.conftest import WAIT_SECONDS, Served
from tests.savedmodels.server.serve_process import ServeProcess

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made: list[Served] = []

    def start(**limits: Any) -> Served:
        (tmp_path / "model").mkdir(exist_ok=True)
        made.append(Served(ModelConfig(name="tiny", base_path=tmp_path / "model"), **limits))
        return made[-1]

    yield start
    for served in made:
        served.inference.drain(WAIT_SECONDS)
        served.store.stop()


def why(served: Served, number: int) -> tuple[str, str]:
    (found,) = (version for version in served.store.model("tiny").statuses() if version.number == number)
    return found.error_code, found.error_message


@pytest.mark.parametrize("name", ["variables/variables.data-00000-of-00001", "assets/words.txt", "pipe"])
def test_a_pipe_in_the_place_of_a_file_is_refused_by_name(serve: Serve, publish: Callable, name: str) -> None:
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    hidden = publish(2, ".hidden")
    (hidden / name).unlink(missing_ok=True)
    (hidden / name).parent.mkdir(exist_ok=True)
    os.mkfifo(hidden / name)
    hidden.rename(hidden.with_name("2"))
    served.wait(lambda: served.states() == {1: "AVAILABLE", 2: "END"})
    code, message = why(served, 2)
    assert code == "UNKNOWN"
    assert f"{name} is a device, a pipe or a socket, and no file. Put the file there." in message
    publish(3)
    served.wait(lambda: served.states().get(3) == "AVAILABLE")
    assert served.ask() == [3, 3, 3]


@pytest.mark.parametrize(
    ("target", "what"), [("..", "a link to a folder, or out of"), ("nowhere", "a link to nothing")]
)
def test_a_link_out_of_a_version_is_refused_by_name(publish: Callable, target: str, what: str) -> None:
    folder = publish(1)
    refuse_files(folder, None)
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "same").symlink_to(folder / "saved_model.pb")
    refuse_files(folder, None)
    (folder / "more").symlink_to(target)
    with pytest.raises(ValueError, match=f"more is {what}.*Put the file there"):
        refuse_files(folder, None)


def test_a_version_that_is_too_large_is_refused_by_its_bytes(serve: Serve, publish: Callable) -> None:
    total = sum(path.stat().st_size for path in publish(1).rglob("*") if path.is_file())
    served = serve(max_version_bytes=total)
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    larger = publish(3, ".3")
    (larger / "assets.extra").mkdir(exist_ok=True)
    (larger / "assets.extra" / "more").write_bytes(b"x" * (total + 1))
    larger.rename(larger.with_name("3"))
    served.wait(lambda: served.states().get(3) == "END")
    assert f"bytes, and {total:,} are allowed. Raise --max-version-bytes." in why(served, 3)[1]
    with pytest.raises(ValueError, match="Raise --max-version-bytes"):
        refuse_files(larger.with_name("3"), 10)
    os.truncate(larger.with_name("3") / "saved_model.pb", 2**31)
    with pytest.raises(ValueError, match=r"its saved_model\.pb has 2,147,483,648 bytes, and no protobuf has more"):
        refuse_files(larger.with_name("3"), None)


def hang(monkeypatch: pytest.MonkeyPatch, number: int) -> threading.Event:
    """The load of one version waits for the event."""
    go_on = threading.Event()
    real = LoadedModel.__init__

    def waiting(self: LoadedModel, folder: Path) -> None:
        if folder.name == str(number):
            go_on.wait()
        real(self, folder)

    monkeypatch.setattr(loading.LoadedModel, "__init__", waiting)
    return go_on


def test_a_load_that_never_ends_is_given_up_and_the_next_one_serves(
    serve: Serve, publish: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = hang(monkeypatch, 2)
    try:
        publish(1)
        served = serve(load_seconds=20.0)
        served.wait(lambda: served.states() == {1: "AVAILABLE"})
        served.store._limits = loading.LoadLimits(seconds=0.2)
        served.store.model("tiny")._limits = served.store._limits
        publish(2)
        served.wait(lambda: served.states().get(2) == "END")
        assert why(served, 2) == (
            "DEADLINE_EXCEEDED",
            f"{served.store.model('tiny').config.base_path / '2'} cannot be loaded: "
            "given up: it took longer than 0.2 s (--load-seconds)",
        )
        assert served.ask() == [1, 1, 1]
        assert Load.any_under_way()
        served.store.model("tiny")._limits = loading.LoadLimits(seconds=WAIT_SECONDS)
        publish(3)
        served.wait(lambda: served.states().get(3) == "AVAILABLE")
        assert served.ask() == [3, 3, 3]
    finally:
        go_on.set()
    served.wait(lambda: not Load.any_under_way())
    assert served.states()[2] == "END"  # what was given up is dropped


def test_a_server_that_loads_stops_at_once(serve: Serve, publish: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = hang(monkeypatch, 1)
    try:
        publish(1)
        served = serve()
        served.wait(lambda: served.states() == {1: "LOADING"})
        served.store.stop()
        assert why(served, 1) == (
            "DEADLINE_EXCEEDED",
            f"{served.store.model('tiny').config.base_path / '1'} cannot be loaded: given up: the server stops",
        )
    finally:
        go_on.set()


# of TensorFlow, which holds no lock of Python's meanwhile; a thread that is daemon would not hold the process
NEVER_ENDS = """
import os, threading
from savedmodels.server import loading
read, write = os.pipe()
loading.LoadedModel.__init__ = lambda self, folder: os.read(read, 1)
"""


@pytest.mark.multiprocess
def test_sigterm_ends_a_server_whose_version_never_loads(versions: Path, tmp_path: Path) -> None:
    with ServeProcess([str(versions), "--drain-seconds", "5"], tmp_path / "log", prelude=NEVER_ENDS) as process:
        began = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5 + 5
    assert process.lines[-1] == "stopped"
