"""Sends a model server thousands of requests that nobody should send, and sees that it stays up and says what is wrong.

    python tools/fuzz_server.py --requests 5000

Half go to REST: changed JSON bodies, bytes, paths, headers, methods, and broken HTTP on bare sockets. Half go to gRPC:
random protos, valid ones with bits flipped, cut or doubled, and random bytes, for every method. The same seed gives the
same requests. Between them, good requests must go on being answered right. Fails (exit code 1) where the server answers
with a server error other than the documented ones (503 and UNAVAILABLE: too busy; 504 and DEADLINE_EXCEEDED: too
slow; 501 and UNIMPLEMENTED: MultiInference), does not answer, ends, or holds ever more memory, threads or files.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz_requests import MODEL, broken_http, change, flipped, is_harmless_reload, rest_request, valid_messages

SERVER_ERRORS = frozenset({503, 504})
GRPC_GOOD = frozenset(
    {
        "OK",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "UNIMPLEMENTED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
    }
)
CHECK_EVERY = 100  # requests between two good ones
ANSWER_SECONDS = 20.0
MEBIBYTE = 2**20
# Python and TensorFlow warm up for so long; what they hold from then on is compared.
WARM_SHARE = 0.3
MEMORY_TOLERANCE = 0.05
SPARE_MEMORY = 16 * MEBIBYTE  # of allocators, whatever the number of requests
SPARE_THREADS = 8
SPARE_FILES = 8


@dataclass
class Report:
    """Answers by kind, and what should not have happened."""

    answers: collections.Counter = field(default_factory=collections.Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, kind: str, code: object) -> None:
        """Counts an answer."""
        self.answers[f"{kind} {code}"] += 1


class Fuzzer:
    """Sends requests to a server.

    Args:
        server: it runs.
        chance: where all randomness comes from.
    """

    def __init__(self, server: Any, chance: random.Random) -> None:
        import grpc

        self.report = Report()
        self._server = server
        self._chance = chance
        self._connection: http.client.HTTPConnection | None = None
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", options=[("grpc.max_send_message_length", -1)]
        )
        self._seeds = valid_messages()

    def close(self) -> None:
        """Closes connections."""
        self._channel.close()
        if self._connection is not None:
            self._connection.close()

    def send_one(self) -> None:
        """One request of a random kind."""
        draw = self._chance.random()
        if draw < 0.45:
            self._rest()
        elif draw < 0.5:
            self._broken()
        else:
            self._grpc()

    # ---- REST

    def _rest(self) -> None:
        method, path, body, headers = rest_request(self._chance)
        shown = f"{method} {path[:80]!r} {headers} {body[:200]!r}"
        for attempt in range(2):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    "127.0.0.1", self._server.rest_port, timeout=ANSWER_SECONDS
                )
            try:
                self._connection.putrequest(method, "/", skip_accept_encoding=True)
                # http.client refuses to send some of these paths; the request line is changed behind its back
                self._connection._buffer[0] = f"{method} {path} HTTP/1.1".encode("latin-1", "replace")
                self._connection.putheader("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self._connection._buffer.append(f"{name}: {value}".encode("latin-1", "replace"))
                self._connection.endheaders(body)
                response = self._connection.getresponse()
                data = response.read()
                if response.will_close:
                    self._forget()
                break
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError) as error:
                self._forget()  # the server may close after an answer that was an error
                if attempt:
                    self.report.note("rest", type(error).__name__)
                    return
            except (OSError, http.client.HTTPException) as error:
                self._forget()
                self.report.problems.append(f"rest: no answer ({type(error).__name__}: {error}) to {shown}")
                return
        self.report.note("rest", response.status)
        if response.status >= 500 and response.status not in SERVER_ERRORS:
            self.report.problems.append(f"rest: {response.status} {data[:200]!r} to {shown}")
        elif response.status != 200 and method != "HEAD":
            try:
                json.loads(data)["error"]
            except (ValueError, KeyError, TypeError):
                self.report.problems.append(
                    f"rest: {response.status} without an error's text: {data[:200]!r} to {shown}"
                )

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _broken(self) -> None:
        data = broken_http(self._chance)
        with socket.create_connection(("127.0.0.1", self._server.rest_port), timeout=ANSWER_SECONDS) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except TimeoutError:
                self.report.problems.append(f"http: no answer and no end to {data[:100]!r}")
                return
            except OSError:  # closed by the server, maybe before all was sent
                answer = b""
        status = answer.split(b" ")[1].decode("latin-1") if answer.startswith(b"HTTP/") else "closed"
        self.report.note("http", status)
        if status[:1] == "5" and int(status) not in SERVER_ERRORS:
            self.report.problems.append(f"http: {status} to {data[:100]!r}")

    # ---- gRPC

    def _grpc(self) -> None:
        path, kind, data = self._chance.choice(self._seeds)
        draw = self._chance.random()
        if draw < 0.6:
            data = flipped(self._chance, data)
        elif draw < 0.7:
            data = self._chance.randbytes(self._chance.randint(0, 200))
        else:
            message = kind.FromString(data)
            change(self._chance, message)
            data = message.SerializeToString()
        if "Reload" in path and not is_harmless_reload(kind, data):
            return
        self._call(path, data)

    def _call(self, path: str, data: bytes) -> None:
        import grpc

        ask = self._channel.unary_unary(f"/tensorflow.serving.{path}", lambda given: given, lambda given: given)
        try:
            ask(data, timeout=ANSWER_SECONDS)
            code, details = "OK", ""
        except grpc.RpcError as error:
            code, details = error.code().name, error.details()
        self.report.note("grpc", code)
        if code not in GRPC_GOOD:
            self.report.problems.append(f"grpc: {path}: {code} {details!r} to {data[:300]!r}")

    # ---- good requests

    def check(self) -> None:
        """Good requests are answered right, by both interfaces."""
        import numpy as np

        from savedmodels.client import GrpcClient, RestClient
        from tests.savedmodels.server.tiny_models import predict_inputs, predict_logits

        inputs = predict_inputs(4)
        for kind, port in ((GrpcClient, self._server.grpc_port), (RestClient, self._server.rest_port)):
            try:
                with kind(f"127.0.0.1:{port}", MODEL, timeout_seconds=ANSWER_SECONDS) as client:
                    logit = client.predict(inputs, signature="predict")["logit"][:, 0]
                if not np.allclose(logit, predict_logits(inputs), atol=1e-5):
                    self.report.problems.append(f"{kind.__name__}: a good request was answered with {logit}")
            except Exception as error:
                self.report.problems.append(f"{kind.__name__}: a good request failed: {type(error).__name__}: {error}")


def run(num_requests: int, seed: int) -> bool:
    """The whole of it; whether all went well."""
    from tests.savedmodels.server.serve_process import ServeProcess
    from tests.savedmodels.server.tiny_models import save_version

    folder = Path(tempfile.mkdtemp(prefix="fuzz_server_"))
    base = folder / "model"
    base.mkdir()
    save_version(base, 1)
    limits = ["--max-message-bytes", str(MEBIBYTE), "--max-rows", "1000", "--request-seconds", "10"]
    try:
        with ServeProcess([str(base), "--name", MODEL, *limits], folder / "log") as server:
            server.wait_for("^ready")
            fuzzer = Fuzzer(server, random.Random(seed))
            fuzzer.check()
            warm = None
            for number in range(num_requests):
                if number == int(num_requests * WARM_SHARE):
                    warm = (server.resident_bytes(), server.num_threads(), server.num_files())
                fuzzer.send_one()
                if number % CHECK_EVERY == CHECK_EVERY - 1:
                    fuzzer.check()
                if server.process.poll() is not None:
                    fuzzer.report.problems.append(f"the server ended with {server.process.returncode} at {number}")
                    break
            fuzzer.check()
            fuzzer.close()
            report = fuzzer.report
            if server.process.poll() is None and warm is not None:
                now = (server.resident_bytes(), server.num_threads(), server.num_files())
                limits_now = (
                    warm[0] * (1 + MEMORY_TOLERANCE) + SPARE_MEMORY,
                    warm[1] + SPARE_THREADS,
                    warm[2] + SPARE_FILES,
                )
                for name, before, after, limit in zip(
                    ("bytes", "threads", "files"), warm, now, limits_now, strict=True
                ):
                    print(f"{name}: {before:,} after {WARM_SHARE:.0%} of the requests, {after:,} at the end")
                    if after > limit:
                        report.problems.append(f"{name} grew from {before:,} to {after:,}")
            code = server.stop()
            if code != 0:
                report.problems.append(f"exit code {code}")
            log = (folder / "log").read_text(errors="replace")
            if "Traceback" in log:
                report.problems.append(f"a traceback in the log: {log[log.index('Traceback') - 300 :][:3000]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{sum(report.answers.values())} answers (seed {seed}): {dict(sorted(report.answers.items()))}")
    for problem in report.problems[:20]:
        print(f"  {problem}")
    print("passed" if not report.problems else f"FAILED: {len(report.problems)} problems")
    return not report.problems


def main() -> int:
    """Parses flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return 0 if run(arguments.requests, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
