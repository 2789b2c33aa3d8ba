"""A preparation that is killed, stopped or disturbed: nothing is lost or doubled, and what comes out is the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data import sample_rows as sample
from tests.full_disk import file_size_limit
from tfdlrm.data import BadRowError
from tfdlrm.data.prepare import Listener, PrepareConfig, prepare
from tfdlrm.data.prepared import prepared_dataset

CONFIG = PrepareConfig(format="criteo-kaggle", split="criteo-kaggle")
SCRIPT = """
import sys
from tfdlrm.data.prepare import Listener, PrepareConfig, prepare

class Teller(Listener):
    def _tell(self, *_):
        print("a step on", flush=True)
        sys.stdin.readline()  # goes on when it is told to

    parsed = fitted = written = _tell

config = PrepareConfig(format="criteo-kaggle", split="criteo-kaggle")
prepare(config, [sys.argv[1]], sys.argv[2], memory=2**27, listener=Teller())
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About five megabytes in three files: several chunks of the smallest size."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(3):
        (folder / f"day_{number}").write_bytes(sample.criteo_text(sample.criteo_rows(8_000, number)))
    return folder


@pytest.fixture(scope="module")
def expected(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    output = tmp_path_factory.mktemp("calm") / "out"
    prepare(CONFIG, [raw], output, memory=2**27)
    return _contents(output)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _begin(raw: Path, output: Path) -> subprocess.Popen[bytes]:
    """A preparation in a process of its own, which writes a line at each step and waits for one."""
    command = [sys.executable, "-c", SCRIPT, str(raw), str(output)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.getcwd())


def _go_on(process: subprocess.Popen[bytes], num_steps: int | None = None) -> int:
    """Lets so many steps pass, or all; how many there were."""
    assert process.stdin is not None
    assert process.stdout is not None
    done = 0
    while done != num_steps and process.stdout.readline():
        process.stdin.write(b"\n")
        process.stdin.flush()
        done += 1
    return done


@pytest.mark.multiprocess
def test_killed_again_and_again(raw: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    random = np.random.default_rng(0)
    with _begin(raw, tmp_path / "calm") as process:
        num_steps = _go_on(process)
    assert process.returncode == 0
    assert num_steps > 10
    killed = 0
    for _ in range(10):
        with _begin(raw, output) as process:
            # each run goes on where the last one was, so that later moments are within later passes
            _go_on(process, int(random.integers(1, num_steps // 4)))
            # somewhere within the next step, at whose end it waits
            time.sleep(float(random.uniform(0, 0.05)))
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
        if (output / "manifest.json").exists():
            break
    assert killed > 1
    if not (output / "manifest.json").exists() or (output / ".work").exists():
        prepare(CONFIG, [raw], output, memory=2**27)
    assert _contents(output) == expected


class _Stop(Exception):
    pass


@pytest.mark.parametrize("moment", ["parsed", "fitted", "written"])
def test_stopped_within_any_pass(moment: str, raw: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    from tfdlrm.data.prepare import Listener

    calls = 0

    class Stopper(Listener):
        def _count(self) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise _Stop

        def parsed(self, *numbers: int) -> None:
            if moment == "parsed":
                self._count()

        def fitted(self, table: str, num_tables: int) -> None:
            if moment == "fitted":
                self._count()

        def written(self, *numbers: int) -> None:
            if moment == "written":
                self._count()

    with pytest.raises(_Stop):
        prepare(CONFIG, [raw], tmp_path / "out", memory=2**27, listener=Stopper())
    assert not (tmp_path / "out" / "manifest.json").exists()
    result = prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    assert result.resumed
    assert _contents(tmp_path / "out") == expected


def test_a_full_disk_loses_nothing(raw: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    with file_size_limit(300_000), pytest.raises(OSError, match="File too large"):
        prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    assert _contents(tmp_path / "out") == expected


def test_an_unfinished_folder_is_no_prepared_data(raw: Path, tmp_path: Path) -> None:
    with file_size_limit(300_000), pytest.raises(OSError, match="File too large"):
        prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    with pytest.raises(FileNotFoundError, match=r"no prepared data there"):
        prepared_dataset(tmp_path / "out")


def test_another_plan_does_not_go_on_with_this_one(raw: Path, tmp_path: Path) -> None:
    with file_size_limit(300_000), pytest.raises(OSError, match="File too large"):
        prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    other = PrepareConfig(format="criteo-kaggle", oov=True)
    with pytest.raises(FileExistsError, match="unfinished preparation of another plan is there; config, schema"):
        prepare(other, [raw], tmp_path / "out", memory=2**27)
    assert not prepare(other, [raw], tmp_path / "out", memory=2**27, restart=True).resumed


def test_a_run_that_stopped_at_a_bad_row_goes_on_by_setting_it_aside(raw: Path, tmp_path: Path) -> None:
    """As its message says; not the other way round, as rows were set aside already."""
    shutil.copytree(raw, tmp_path / "raw")
    days = sorted((tmp_path / "raw").iterdir())
    days[-1].write_bytes(days[-1].read_bytes() + b"hello\n")
    with pytest.raises(BadRowError, match="--bad-rows quarantine"):
        prepare(CONFIG, [tmp_path / "raw"], tmp_path / "out", memory=2**27)
    result = prepare(CONFIG, [tmp_path / "raw"], tmp_path / "out", memory=2**27, bad_rows="quarantine")
    assert result.resumed
    assert result.books["quarantined"] == 1
    fresh = prepare(CONFIG, [tmp_path / "raw"], tmp_path / "fresh", memory=2**27, bad_rows="quarantine")
    assert result.manifest == fresh.manifest
    with file_size_limit(300_000), pytest.raises(OSError, match="File too large"):
        prepare(CONFIG, [tmp_path / "raw"], tmp_path / "other", memory=2**27, bad_rows="quarantine")
    with pytest.raises(FileExistsError, match="another plan is there; bad_rows changed"):
        prepare(CONFIG, [tmp_path / "raw"], tmp_path / "other", memory=2**27)


def test_a_source_that_changed_meanwhile_is_another_plan(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "raw")
    with file_size_limit(300_000), pytest.raises(OSError, match="File too large"):
        prepare(CONFIG, [tmp_path / "raw"], tmp_path / "out", memory=2**27)
    with (tmp_path / "raw" / "day_1").open("ab") as stream:
        stream.write(sample.criteo_text(sample.criteo_rows(1)))
    with pytest.raises(FileExistsError, match="sources changed"):
        prepare(CONFIG, [tmp_path / "raw"], tmp_path / "out", memory=2**27)


def test_finished_data_are_not_overwritten(raw: Path, tmp_path: Path) -> None:
    prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    with pytest.raises(FileExistsError, match=r"prepared data are there already. Give another folder, or --restart"):
        prepare(CONFIG, [raw], tmp_path / "out", memory=2**27)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    prepare(CONFIG, [raw], tmp_path / "out", memory=2**27, restart=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_files_is_left_alone(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"holds other files \(thesis.txt\)"):
        prepare(CONFIG, [raw], tmp_path / "out")


def test_two_at_once(raw: Path, tmp_path: Path) -> None:
    from tfdlrm.data.prepare.work import WorkFolder

    plan = {"anything": 1}
    first = WorkFolder(tmp_path / "out", plan)
    with pytest.raises(BlockingIOError, match=r"another process prepares data there"):
        WorkFolder(tmp_path / "out", plan)
    first.close()
    WorkFolder(tmp_path / "out", plan).close()


def test_listeners_are_told_one_thing_at_a_time(raw: Path, tmp_path: Path) -> None:
    inside, together, told = threading.Lock(), [], []

    class Slow(Listener):
        def _tell(self, *what: object) -> None:
            if inside.acquire(blocking=False):
                time.sleep(0.002)  # any other thread's call would come now
                inside.release()
            else:
                together.append(what)
            told.append(what)

        parsed = fitted = written = _tell

    prepare(CONFIG, [raw], tmp_path / "out", memory=2**27, listener=Slow())
    assert len(told) > 20
    assert together == []
