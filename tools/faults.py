"""Kills, full disks and read-only disks at every kind of write; what was whole stays whole, and the next run finishes.

    python tools/faults.py --kills 200 --full 50 --read-only 20

Each of the commands that write (train, data prepare, export, export-delta, apply-delta) runs in a process before whose
calls that change files stands `fault_points.c`. It counts them; then runs of the same command are killed, or find the
disk full or read-only, at calls spread evenly over all of them (a killed write has written half). After each, the
older results must be as they were, a new one whole or not there, and the command, run again, must end as one that was
left alone: for training bit by bit. Prints a line a command and kind; exits with 1 where anything was lost or half.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

POINTS = Path(__file__).with_name("fault_points.c")
LIBRARY = "TFDLRM_FAULT_POINTS"  # where the compiled one is, in the process that uses it
KINDS = {"kill": 1, "full": 2, "read-only": 3}
WORDS = {"full": "No space left on device", "read-only": "Read-only file system"}


@dataclass(kw_only=True)
class Command:
    """A command that writes below one folder.

    Args:
        name: for reports.
        arguments: of `tfdlrm`, given that folder.
        prepare: makes the folder as the command finds it.
        again: arguments of the run after a fault.
        problems: what is wrong after a fault, before and after the command has run again.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    prepare: Callable[[Path], None]
    again: Callable[[Path], list[str]]
    problems: Callable[[Path, bool], Iterator[str]]
    writes: int = 0


def run(arguments: Sequence[str], folder: Path, kind: str | None, at: int, out: Path) -> tuple[int, int]:
    """A command in a forked process: its exit code (below 0 a signal), and how many calls changed files."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_session, args=(list(arguments), str(folder), kind, at, str(out), sender))
    process.start()
    sender.close()
    try:
        count = receiver.recv()
    except EOFError:
        count = 0
    process.join()
    return int(process.exitcode or 0), count


def _session(arguments: list[str], folder: str, kind: str | None, at: int, out: str, sender: object) -> None:
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    points = ctypes.CDLL(os.environ[LIBRARY])
    from tfdlrm.cli.program import main

    points.faults_arm(folder.encode(), KINDS.get(kind or "", 0), ctypes.c_long(at))
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sender.send(points.faults_count())  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Faults:
    """The commands, and what each leaves when nothing disturbs it.

    Args:
        folder: for everything.
    """

    def __init__(self, folder: Path) -> None:
        from tests.data import sample_rows as sample

        self._folder = folder
        self._raw = folder / "raw"
        self._raw.mkdir()
        for number in range(2):
            rows = sample.criteo_text(sample.criteo_rows(3_000, number))
            (self._raw / f"day_{number}").write_bytes(rows)
        self._config = folder / "config.yaml"
        self._config.write_text(CONFIG.format(path=folder / "prepared"), encoding="utf-8")
        self._calm("data", "prepare", *self._prepare_options(folder / "prepared"))
        self._calm("train", str(self._config), "--model-dir", str(folder / "model"), "--quiet")
        self._calm("export", str(folder / "model"), str(folder / "exports"), "--checkpoint", "best")
        self._calm("export", str(folder / "model"), str(folder / "exports"), "--checkpoint", self._first_checkpoint())
        self._calm("export-delta", *(str(folder / "exports" / each) for each in "12"), str(folder / "delta"))
        self.commands = [
            Command(
                name="data prepare",
                arguments=lambda at: ["data", "prepare", *self._prepare_options(at / "out")],
                prepare=lambda at: None,
                again=lambda at: ["data", "prepare", *self._prepare_options(at / "out")],
                problems=self._prepare_problems,
            ),
            Command(
                name="train",
                arguments=lambda at: ["train", str(self._config), "--model-dir", str(at / "run"), "--quiet"],
                prepare=lambda at: None,
                again=self._train_again,
                problems=self._train_problems,
            ),
            Command(
                name="export",
                arguments=lambda at: ["export", str(self._folder / "model"), str(at / "exports")],
                prepare=self._one_version,
                again=lambda at: ["export", str(self._folder / "model"), str(at / "exports")],
                problems=self._version_problems,
            ),
            Command(
                name="export-delta",
                arguments=self._delta_arguments,
                prepare=lambda at: None,
                again=self._delta_arguments,
                problems=self._delta_problems,
            ),
            Command(
                name="apply-delta",
                arguments=self._apply_arguments,
                prepare=self._one_version,
                again=self._apply_arguments,
                problems=self._apply_problems,
            ),
        ]

    def _calm(self, *arguments: str) -> None:
        code, _ = run(arguments, self._folder / "nothing", None, 0, self._folder / "log")
        if code:
            raise RuntimeError(f"tfdlrm {' '.join(arguments)}: {(self._folder / 'log').read_text()}")

    def _first_checkpoint(self) -> str:
        return min(path.name for path in (self._folder / "model" / "checkpoints").glob("step-*"))

    def _prepare_options(self, out: Path) -> list[str]:
        return [str(self._raw), str(out), "--format", "criteo-kaggle", "--split", "criteo-kaggle"]

    def _prepare_problems(self, at: Path, is_finished: bool) -> Iterator[str]:
        if is_finished and contents(at / "out") != contents(self._folder / "prepared"):
            yield "the prepared data differ"
        if not is_finished and (at / "out" / "manifest.json").exists():
            expected = contents(self._folder / "prepared")
            if any((at / "out" / name).read_bytes() != data for name, data in expected.items()):
                yield "a manifest without all that it names"

    def _train_again(self, at: Path) -> list[str]:
        has_run = any((at / "run" / "checkpoints").glob("step-*"))
        return [*self.commands[1].arguments(at), *(["--resume"] if has_run else [])]

    def _train_problems(self, at: Path, is_finished: bool) -> Iterator[str]:
        from tfdlrm.training.model_dir import ModelDir
        from tools.kill_resume import differences

        folder = ModelDir(at / "run")
        names = folder.checkpoints().names()
        for name in names:
            folder.checkpoints().verify(name)
        best = folder.read_best()
        if best is not None and best["checkpoint"] not in names:
            yield f"best.json names {best['checkpoint']}, and there are {names}"
        if is_finished:
            yield from differences(self._folder / "model", at / "run")
            yield from (f"{path.name} is left" for path in (at / "run").rglob(".*") if path.name != ".lock")

    def _one_version(self, at: Path) -> None:
        shutil.copytree(self._folder / "exports" / "1", at / "exports" / "1")

    def _version_problems(self, at: Path, is_finished: bool) -> Iterator[str]:
        from savedmodels.manifest import check_files

        if contents(at / "exports" / "1") != contents(self._folder / "exports" / "1"):
            yield "version 1 was changed"
        numbers = sorted(path.name for path in (at / "exports").iterdir() if path.name.isdigit())
        for number in numbers:
            yield from (f"version {number}: {line}" for line in check_files(at / "exports" / number))
        if is_finished:
            if len(numbers) < 2:
                yield "there is no new version"
            left = [path.name for path in (at / "exports").iterdir() if not path.name.isdigit()]
            yield from (f"{name} is left" for name in left)

    def _delta_arguments(self, at: Path) -> list[str]:
        return ["export-delta", *(str(self._folder / "exports" / each) for each in "12"), str(at / "delta")]

    def _delta_problems(self, at: Path, is_finished: bool) -> Iterator[str]:
        found = contents(at / "delta") if (at / "delta").exists() else None
        if found != contents(self._folder / "delta") and (is_finished or found is not None):
            yield "the delta differs"
        if is_finished:
            yield from (f"{path.name} is left" for path in at.iterdir() if path.name != "delta")

    def _apply_arguments(self, at: Path) -> list[str]:
        return ["apply-delta", str(at / "exports" / "1"), str(self._folder / "delta"), str(at / "exports")]

    def _apply_problems(self, at: Path, is_finished: bool) -> Iterator[str]:
        yield from self._version_problems(at, is_finished)
        if is_finished and contents(at / "exports" / "2") != contents(self._folder / "exports" / "2"):
            yield "version 2 is another one"

    def count(self) -> None:
        """How many calls of each command change files; the same command is then disturbed at some of them."""
        for command in self.commands:
            with self._place(command) as at:
                code, command.writes = run(command.arguments(at), at, None, 0, self._folder / "log")
                found = self._problems(command, at, True)
                if code or found:
                    raise RuntimeError(f"{command.name}: {code} {found} {(self._folder / 'log').read_text()}")

    def disturb(self, command: Command, kind: str, number: int) -> list[str]:
        """Problems of one run that meets a fault at a call, and of the one after it."""
        with self._place(command) as at:
            log = self._folder / "log"
            code, _ = run(command.arguments(at), at, kind, number, log)
            said = log.read_text(errors="replace")
            problems = []
            if kind == "kill" and code not in (-9, 0):
                problems.append(f"ended with {code}: {said[-300:]}")
            if kind != "kill":
                if code == 0:
                    problems.extend(f"said nothing, and {each}" for each in self._problems(command, at, True))
                elif WORDS[kind] not in said or "Traceback" in said:
                    problems.append(f"ended with {code}, without a word on the disk: {said[-300:]}")
            problems.extend(f"after the fault: {each}" for each in self._problems(command, at, False))
            if code:
                again, _ = run(command.again(at), at, None, 0, log)
                if again:
                    problems.append(f"the run after it ended with {again}: {log.read_text(errors='replace')[-300:]}")
                problems.extend(f"after the run after it: {each}" for each in self._problems(command, at, True))
            return problems

    def _problems(self, command: Command, at: Path, is_finished: bool) -> list[str]:
        try:
            return list(command.problems(at, is_finished))
        except Exception as error:  # what cannot be read is a problem, too
            return [f"{type(error).__name__}: {error}"]

    def _place(self, command: Command) -> _Place:
        return _Place(self._folder / "disturbed", command)


class _Place:
    def __init__(self, folder: Path, command: Command) -> None:
        self._folder, self._command = folder, command

    def __enter__(self) -> Path:
        self._folder.mkdir()
        self._command.prepare(self._folder)
        return self._folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._folder)


CONFIG = """
model:
  embedding_dim: 4
  bottom_mlp: [8, 4]
  top_mlp: [8, 1]
train:
  optimizer: adagrad
  learning_rate: 0.05
  global_batch_size: 256
  epochs: 2
  deterministic: true
  steps_per_execution: 1
  checkpoint_every_steps: 9
data:
  format: prepared
  path: {path}
"""


def spread(total: int, number: int, seed: int) -> list[int]:
    """So many of the calls 1 to `total`, evenly; another seed has others."""
    number = min(number, total)
    return sorted({1 + (seed + each * total // number) % total for each in range(number)})


def main(arguments: list[str] | None = None) -> int:
    """Disturbs every command, and prints what came of it; 0 where nothing was lost or half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="over all commands; default: %(default)s")
    parser.add_argument("--full", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--read-only", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="moves the calls on by so many")
    options = parser.parse_args(arguments)
    if LIBRARY not in os.environ:
        return _in_a_process_that_counts(sys.argv[1:] if arguments is None else arguments)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tfdlrm.training.run", "savedmodels.export"])
    began, failed, done = time.monotonic(), 0, collections.Counter[str]()
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        faults = Faults(Path(temporary).resolve())
        faults.count()
        for kind, number in (("kill", options.kills), ("full", options.full), ("read-only", options.read_only)):
            for place, command in enumerate(faults.commands):
                share = number * (place + 1) // len(faults.commands) - number * place // len(faults.commands)
                calls = spread(command.writes, share, options.seed) if share else []
                bad = {call: found for call in calls if (found := faults.disturb(command, kind, call))}
                done[kind] += len(calls)
                failed += len(bad)
                print(
                    f"{kind:9} {command.name:12} {len(calls):3} of {command.writes} calls, {len(bad)} bad", flush=True
                )
                for call, found in bad.items():
                    print(f"    call {call}: {'; '.join(found)}", flush=True)
    told = ", ".join(f"{number} {kind}" for kind, number in done.items())
    print(f"{told}: {failed} lost something or left it half; {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def _in_a_process_that_counts(arguments: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="fault-points-") as folder:
        library = Path(folder) / "fault_points.so"
        command = ["gcc", "-O1", "-shared", "-fPIC", "-Wall", str(POINTS), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        environment = {
            **os.environ,
            LIBRARY: str(library),
            "LD_PRELOAD": str(library),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        return subprocess.run([sys.executable, __file__, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
