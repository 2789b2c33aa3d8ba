"""Reloads a served model again and again under the constant load of two clients, and looks for anything lost.

    python tools/serve_reload.py --seconds 60 --versions 10 --broken 2

A server of its own process serves version 1; a gRPC and a REST client ask without pause; new versions appear, some of
them broken, and old folders go. Every row of an answer says which version gave it. Fails (exit code 1) where a request
failed, rows of one answer came from two versions, a client did not come to the last version, or the memory of the
server at the end is more than `--tolerance` above what it was with the first version alone. Some requests are so large
that the client sends them in parts.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PART_ROWS = 50
PARTS_EVERY = 20  # one request of so many is sent in parts
BYTES_A_FLOAT = 4
MEBIBYTE = 2**20
SAMPLE_SECONDS = 0.05
SETTLE_SECONDS = 5.0
LOAD_SECONDS = 60.0


@dataclass
class Load:
    """What one client saw.

    Args:
        name: grpc or rest.
        seconds: of each answer.
        failures: messages.
        mixed: answers with rows of two versions.
        versions: that answered, in order of their first answer.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    mixed: list[list[int]] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost or mixed."""
        return bool(self.seconds) and not self.failures and not self.mixed and self.versions == sorted(self.versions)

    def text(self) -> str:
        """A line."""
        ordered = sorted(self.seconds) or [0.0]
        p50, p99 = (ordered[int(len(ordered) * q)] * 1e3 for q in (0.5, 0.99))
        return (
            f"{self.name}: {len(self.seconds)} answers, {len(self.failures)} failures, {len(self.mixed)} mixed; "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {ordered[-1] * 1e3:.1f} ms; versions {self.versions}"
        )


def ask_on(client, load: Load, stopped: threading.Event, seed: int) -> None:
    """Asks until told to stop."""
    from tests.savedmodels.server.tiny_models import predict_inputs

    chance = random.Random(seed)
    with client:
        while not stopped.is_set():
            is_in_parts = len(load.seconds) % PARTS_EVERY == PARTS_EVERY - 1
            inputs = predict_inputs(PART_ROWS * 3 if is_in_parts else chance.randint(1, PART_ROWS))
            start = time.perf_counter()
            try:
                answered = client.predict(inputs, signature="predict")["version"].tolist()
            except Exception as error:
                load.failures.append(f"{type(error).__name__}: {error}")
                continue
            load.seconds.append(time.perf_counter() - start)
            seen = sorted(set(answered))
            if len(seen) != 1 or len(answered) != len(inputs["user"]):
                load.mixed.append(seen)
            elif not load.versions or load.versions[-1] != seen[0]:
                load.versions.append(seen[0])


class Peak(threading.Thread):
    """The most memory that a server held.

    Args:
        server: its process.
    """

    def __init__(self, server) -> None:
        super().__init__(daemon=True)
        self.num_bytes = 0
        self._server = server
        self._stopped = threading.Event()

    def run(self) -> None:
        """Looks again and again."""
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.num_bytes = max(self.num_bytes, self._server.resident_bytes())

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()
        self.join()


def broken_versions(num_versions: int, num_broken: int) -> list[int]:
    """Which of the versions 2 ... `num_versions` + 1 are broken: spread out, and not the last."""
    return [2 + (index * (num_versions - 1)) // num_broken for index in range(num_broken)]


def save_broken(base: Path, version: int, num_floats: int, *, graph: bool) -> None:
    """A version whose graph, or whose variables, are cut short."""
    from tests.savedmodels.server.tiny_models import save_version

    apart = base.parent / "broken"
    apart.mkdir(exist_ok=True)
    folder = save_version(apart, version, num_floats)
    file = folder / ("saved_model.pb" if graph else "variables/variables.data-00000-of-00001")
    os.truncate(file, file.stat().st_size // 2)
    folder.rename(base / str(version))


def run(
    seconds: float, num_versions: int, num_broken: int, model_bytes: int, tolerance: float, seed: int, extra: list[str]
) -> bool:
    """The whole of it; whether all went well."""
    from savedmodels.client import GrpcClient, RestClient
    from savedmodels.client.retries import RetryPolicy
    from tests.savedmodels.server.serve_process import ServeProcess
    from tests.savedmodels.server.tiny_models import save_version

    num_floats = max(1, model_bytes // BYTES_A_FLOAT)
    folder = Path(tempfile.mkdtemp(prefix="serve_reload_"))
    base = folder / "model"
    base.mkdir()
    save_version(base, 1, num_floats)
    arguments = [str(base), "--name", "tiny", "--poll-seconds", "0.2", *extra]
    loads = [Load("grpc"), Load("rest")]
    stopped = threading.Event()
    try:
        with ServeProcess(arguments, folder / "log") as server:
            server.wait_for("^ready")
            # no retries: a request that had to be sent twice was dropped once
            options = {"model": "tiny", "max_rows": PART_ROWS, "retry": RetryPolicy(num_retries=0)}
            clients = [
                GrpcClient(f"127.0.0.1:{server.grpc_port}", **options),
                RestClient(f"127.0.0.1:{server.rest_port}", **options),
            ]
            threads = [
                threading.Thread(target=ask_on, args=(client, load, stopped, seed + number))
                for number, (client, load) in enumerate(zip(clients, loads, strict=True))
            ]
            for thread in threads:
                thread.start()
            pause = seconds / (num_versions + 2)
            time.sleep(pause)
            before = server.resident_bytes()
            peak = Peak(server)
            peak.start()
            next_time = time.monotonic()
            broken = broken_versions(num_versions, num_broken)
            for version in range(2, num_versions + 2):
                if version in broken:
                    save_broken(base, version, num_floats, graph=broken.index(version) % 2 == 0)
                else:
                    save_version(base, version, num_floats)
                shutil.rmtree(base / str(version - 2), ignore_errors=True)
                next_time += pause
                time.sleep(max(0.0, next_time - time.monotonic()))
            last = num_versions + 1
            deadline = time.monotonic() + LOAD_SECONDS
            while any(load.versions[-1:] != [last] for load in loads) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(pause)
            stopped.set()
            peak.stop()
            for thread in threads:
                thread.join()
            after = server.resident_bytes()
            deadline = time.monotonic() + SETTLE_SECONDS
            while after > before * (1 + tolerance) and time.monotonic() < deadline:
                time.sleep(0.2)
                after = server.resident_bytes()
            code = server.stop()
    finally:
        stopped.set()
        shutil.rmtree(folder, ignore_errors=True)
    for load in loads:
        print(load.text())
        for failure in load.failures[:5]:
            print(f"  {failure}")
    print(f"versions that were broken: {', '.join(map(str, broken)) or 'none'}")
    answered_broken = any(version in broken for load in loads for version in load.versions)
    came_to_last = all(load.versions[-1:] == [last] for load in loads)
    is_small = after <= before * (1 + tolerance)
    print(
        f"memory: {before / MEBIBYTE:.0f} MiB with version 1, at most {peak.num_bytes / MEBIBYTE:.0f} MiB, "
        f"{after / MEBIBYTE:.0f} MiB with version {last} ({after / before - 1:+.1%}; {tolerance:.0%} allowed); "
        f"variables of a version: {num_floats * BYTES_A_FLOAT / MEBIBYTE:.0f} MiB; exit code {code}"
    )
    is_good = all(load.is_good for load in loads) and came_to_last and not answered_broken and is_small and code == 0
    print("passed" if is_good else "FAILED")
    return is_good


def main() -> int:
    """Parses flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default: %(default)s)")
    parser.add_argument("--versions", type=int, default=10, help="that appear (default: %(default)s)")
    parser.add_argument("--broken", type=int, default=0, help="of them, all but the last (default: %(default)s)")
    parser.add_argument("--model-mebibytes", type=int, default=128, help="of variables (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.1, help="of the memory (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-batch-rows", type=int, help="have the server put requests together")
    arguments = parser.parse_args()
    extra = [] if arguments.max_batch_rows is None else ["--max-batch-rows", str(arguments.max_batch_rows)]
    model_bytes = arguments.model_mebibytes * MEBIBYTE
    if not 0 <= arguments.broken < arguments.versions:
        parser.error(f"--broken {arguments.broken}: give fewer than --versions {arguments.versions}.")
    is_good = run(
        arguments.seconds,
        arguments.versions,
        arguments.broken,
        model_bytes,
        arguments.tolerance,
        arguments.seed,
        extra,
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
