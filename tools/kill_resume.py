"""Kills a training run with SIGKILL at random moments, resumes it, and compares every bit with a run left alone.

    python tools/kill_resume.py --moments 20

Each moment is a run of its own, killed once or more (`--kills`): at a random time, or while a checkpoint is being
written. It is resumed until it ends; then its last checkpoint (rows, slots, dense weights, optimizer, metrics and
random state), its history and its best epoch must be those of the uninterrupted run, which another interpreter made.
Exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

POLL_SECONDS = 0.002
# A checkpoint of the run is written in about 30 ms; a kill comes up to so long after it was begun.
WRITING_SECONDS = 0.03
MAX_KILLS = 3


def train_session(model_dir: str, log: str, resume: bool, rows: int, epochs: int) -> None:
    """One session of the run, in a process of its own."""
    with open(log, "a") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    from tfdlrm.config import (
        DataConfig,
        DLRMConfig,
        ExperimentConfig,
        LearningRateConfig,
        SyntheticConfig,
        TrainConfig,
    )
    from tfdlrm.training.run import train

    config = ExperimentConfig(
        model=DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1), dropout=0.1, normalization="batch"),
        train=TrainConfig(
            optimizer="adam",
            learning_rate=0.01,
            schedule=LearningRateConfig(warmup_steps=20, decay_start_step=60, num_decay_steps=400),
            global_batch_size=64,
            steps_per_execution=1,
            epochs=epochs,
            deterministic=True,
            checkpoint_every_steps=7,
        ),
        data=DataConfig(
            split="time",
            synthetic=SyntheticConfig(num_rows=rows, num_dense=4, vocabulary_sizes=(2000, 50, 300), hotness=(1, 1, 3)),
        ),
    )
    train(config, model_dir, resume=resume, verbose=0)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One moment.

    Args:
        kills: where each kill came: at which newest checkpoint, and whether a half-written one was left.
        seconds: from the first start to the end.
        differences: names of what differs from the uninterrupted run.
    """

    kills: list[str]
    seconds: float
    differences: list[str]


class KillTest:
    """Runs sessions and kills them.

    Args:
        folder: for the runs.
        rows, epochs: size of the run.
        seed: of the moments.
        kills: of a run, at most.
    """

    def __init__(self, folder: Path, *, rows: int, epochs: int, seed: int, kills: int = MAX_KILLS) -> None:
        self._folder = folder
        self._kills = kills
        self._size = (rows, epochs)
        self._random = random.Random(seed)
        # Forked from a server that has imported everything and done nothing: a session starts at once.
        self._sessions = multiprocessing.get_context("forkserver")
        self._sessions.set_forkserver_preload(["tfdlrm.training.run", "tfdlrm.data.synthetic"])
        self.expected = folder / "uninterrupted"
        self.session_seconds = 0.0

    def run_uninterrupted(self) -> float:
        """Makes the run to compare with, by an interpreter of its own; times one like it. Returns seconds."""
        began = time.monotonic()
        self._finish(self._start(multiprocessing.get_context("spawn"), self.expected, resume=False), self.expected)
        taken = time.monotonic() - began
        again = self._folder / "timed"
        starter = self._sessions.Process(target=os.getpid)  # the first one starts the server
        starter.start()
        starter.join()
        began = time.monotonic()
        self._finish(self._start(self._sessions, again, resume=False), again)
        self.session_seconds = time.monotonic() - began
        return taken

    def moment(self, number: int) -> Outcome:
        """A run that is killed and resumed."""
        folder = self._folder / f"moment-{number}"
        began = time.monotonic()
        kills: list[str] = []
        wanted = self._random.randint(1, self._kills)
        while len(kills) < wanted:
            started = time.monotonic()
            session = self._start(self._sessions, folder, resume=_has_checkpoint(folder))
            if self._random.random() < 0.5:
                self._wait(session, self._random.uniform(0.0, self.session_seconds))
                why = "at random"
            else:
                self._wait_for_writing(session, folder, self._random.randint(1, 12))
                why = "while writing"
            if not session.is_alive():
                self._finish(session, folder)
                if kills:
                    break
                # the machine is quicker than it was: that was no kill, so begin anew
                self.session_seconds = time.monotonic() - started
                shutil.rmtree(folder)
                continue
            session.kill()
            session.join()
            kills.append(f"{why}: {_describe(folder)}")
        self._finish(self._start(self._sessions, folder, resume=_has_checkpoint(folder)), folder)
        return Outcome(
            kills=kills, seconds=time.monotonic() - began, differences=list(differences(self.expected, folder))
        )

    def _start(self, context: multiprocessing.context.BaseContext, folder: Path, *, resume: bool) -> BaseProcess:
        session = context.Process(target=train_session, args=(str(folder), f"{folder}.log", resume, *self._size))  # type: ignore[attr-defined]
        session.start()
        return session

    def _finish(self, session: BaseProcess, folder: Path) -> None:
        session.join()
        if session.exitcode != 0:
            log = Path(f"{folder}.log").read_text()
            raise RuntimeError(f"a session that was not killed ended with exit code {session.exitcode}:\n{log}")

    def _wait(self, session: BaseProcess, seconds: float) -> None:
        session.join(seconds)

    def _wait_for_writing(self, session: BaseProcess, folder: Path, which: int) -> None:
        """Until the `which`-th checkpoint of this session is being written."""
        checkpoints = folder / "checkpoints"
        seen: set[str] = set()
        while session.is_alive():
            if checkpoints.is_dir():
                seen.update(entry for entry in os.listdir(checkpoints) if entry.startswith(".partial-"))
            if len(seen) >= which:
                time.sleep(self._random.uniform(0.0, WRITING_SECONDS))
                return
            time.sleep(POLL_SECONDS)


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step-*"))


def _describe(folder: Path) -> str:
    names = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    half = any((folder / "checkpoints").glob(".*"))
    newest = f"step {int(names[-1].removeprefix('step-'))}" if names else "no checkpoint yet"
    return newest + (" and a half-written one" if half else "")


def differences(expected: Path, found: Path) -> Iterator[str]:
    """What differs between the ends of two runs, bit by bit."""
    last = [sorted((folder / "checkpoints").glob("step-*"))[-1] for folder in (expected, found)]
    if last[0].name != last[1].name:
        yield f"last checkpoint: {last[0].name}, {last[1].name}"
    one, other = (_numbers(folder) for folder in last)
    for name in sorted(set(one) | set(other)):
        if one.get(name) != other.get(name):
            yield name
    for file in ("history.csv", "best.json"):
        if (expected / file).read_bytes() != (found / file).read_bytes():
            yield file
    states = [json.loads((folder / "state.json").read_text())["state"] for folder in last]
    for key, value in states[0].items():
        if key != "elapsed_seconds" and value != states[1][key]:
            yield f"state {key}: {value}, {states[1][key]}"


def _numbers(checkpoint: Path) -> dict[str, bytes]:
    """Every number of a checkpoint, by name."""
    import numpy as np
    import tensorflow as tf

    with np.load(checkpoint / "variables.npz", allow_pickle=False) as arrays:
        found = {name: arrays[name].tobytes() for name in arrays.files}
    tables = tf.train.load_checkpoint(str(checkpoint / "tables"))
    for name in tables.get_variable_to_shape_map():
        found[name] = np.asarray(tables.get_tensor(name)).tobytes()
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the test and prints a line a moment; 0 where every run ended alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="runs that are killed and resumed")
    parser.add_argument("--rows", type=int, default=12_000, help="rows of the data, four fifths of them for training")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=MAX_KILLS, help="of a run, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill_resume-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        test = KillTest(folder, rows=options.rows, epochs=options.epochs, seed=options.seed, kills=options.kills)
        taken = test.run_uninterrupted()
        numbers = _numbers(sorted((test.expected / "checkpoints").glob("step-*"))[-1])
        print(
            f"uninterrupted: {taken:.1f} s with start-up, {test.session_seconds:.1f} s without; "
            f"{len(numbers)} arrays, {sum(len(value) for value in numbers.values()):,} bytes to compare",
            flush=True,
        )
        failed = num_kills = 0
        for number in range(1, options.moments + 1):
            outcome = test.moment(number)
            failed += bool(outcome.differences)
            num_kills += len(outcome.kills)
            verdict = f"DIFFERS in {', '.join(outcome.differences)}" if outcome.differences else "bit-identical"
            print(f"{number:3d}  {verdict}  {outcome.seconds:5.1f} s  killed {'; '.join(outcome.kills)}", flush=True)
            if not options.keep:
                shutil.rmtree(folder / f"moment-{number}")
    same = options.moments - failed
    seconds = time.monotonic() - began
    print(f"{same} of {options.moments} runs ended bit-identical after {num_kills} kills; {seconds:.0f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
