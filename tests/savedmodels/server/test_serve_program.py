"""`tfdlrm serve` and `tfdlrm query` as a user runs them, and the tools that try a server hard, for a short time."""

from __future__ import annotations

import http.client
import io
import json
import random
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from savedmodels.client import GrpcClient
from savedmodels.serve_commands import add_query, add_serve
from tests.late_signals import SIGNAL_AT_THE_END
from tests.savedmodels.server.conftest import Gate, wait_in_flight
from tests.savedmodels.server.serve_process import ROOT, ServeProcess, command
from tests.savedmodels.server.tiny_models import predict_inputs, predict_logits
from tfdlrm.cli.program import main

COMMANDS = [add_serve, add_query]


def run(*arguments: str) -> int:
    return main(list(arguments), COMMANDS)


def ask_held(port: int, gate: Gate) -> tuple[int, dict, str | None]:
    """Asks over REST for what waits for the gate."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/models/tiny:predict", json.dumps({"signature_name": "held", "inputs": gate.inputs}))
    response = connection.getresponse()
    answer = (response.status, json.loads(response.read()), response.getheader("Connection"))
    connection.close()
    return answer


@pytest.mark.multiprocess
def test_a_server_says_what_it_is_not_and_ends_after_its_last_request(versions, tmp_path, gate):
    with (
        ServeProcess(
            [str(versions), "--name", "tiny", "--max-batch-rows", "8"], tmp_path / "log", prelude=SIGNAL_AT_THE_END
        ) as process,
        GrpcClient(f"127.0.0.1:{process.grpc_port}", "tiny") as client,
        ThreadPoolExecutor(2) as executor,
    ):
        process.wait_for("^ready")
        assert "not TensorFlow Serving" in process.lines[0]
        client.signature("held")
        by_rest = executor.submit(ask_held, process.rest_port, gate)
        by_grpc = executor.submit(client.predict, {"gate": gate.inputs}, signature="held")
        wait_in_flight(process.rest_port, 2)
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("^stopping")
        with pytest.raises(ConnectionError):  # nobody new is let in
            socket.create_connection(("127.0.0.1", process.rest_port), timeout=5)
        process.process.send_signal(signal.SIGTERM)  # once more changes nothing
        process.process.send_signal(signal.SIGINT)
        gate.open()
        assert by_rest.result() == (200, {"outputs": gate.inputs}, "close")
        assert by_grpc.result()["gate"].tolist() == [path.encode() for path in gate.inputs]
        # the program signals itself while the interpreter finishes, too
        assert process.wait() == 0
    assert process.lines[-1] == "stopped"


@pytest.mark.parametrize("flag", ["--grpc-port", "--rest-port"])
def test_a_port_in_use_is_named(flag, versions, capsys):
    other = {"--grpc-port": "--rest-port", "--rest-port": "--grpc-port"}[flag]
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run("serve", str(versions), flag, port, other, "0") == 2
    assert signal.getsignal(signal.SIGTERM) is before
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be bound" in error
    assert flag in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "model 'default': nowhere is no folder"),
        ([], "There is no model to serve. Give DIR, --model NAME=DIR or --model-config FILE"),
        ([".", "--model", "default=."], "model 'default' is given twice"),
        (["--model", "x"], "--model x: NAME=DIR is expected"),
        (["--model", "a/b=."], "model name 'a/b' cannot be in a path"),
        ([".", "--host", "0.0.0.0"], "host '0.0.0.0' is reached from other machines"),
        ([".", "--grpc-port", "70000"], "grpc_port=70000 is no port"),
        ([".", "--max-batch-rows", "0"], "max_batch_rows=0 is not possible"),
        ([".", "--model-config", "missing.config"], "missing.config: No such file"),
    ],
)
def test_wrong_usage_is_told(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("serve", *arguments) == 2
    assert message in capsys.readouterr().err


def _jsonl(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _rows(num_rows: int) -> list[dict]:
    """`predict_inputs` row by row: bags as lists."""
    inputs, rows, start = predict_inputs(num_rows), [], 0
    for row in range(num_rows):
        stop = start + inputs["genres_row_lengths"][row]
        rows.append(
            {
                "dense": inputs["dense"][row],
                "user": inputs["user"][row],
                "genres": inputs["genres"][start:stop],
                "genres_weights": inputs["genres_weights"][start:stop],
            }
        )
        start = stop
    return rows


@pytest.fixture(params=["grpc", "rest"])
def address(request, server) -> list[str]:
    return [f"127.0.0.1:{server.grpc_port}"] if request.param == "grpc" else [f"http://127.0.0.1:{server.rest_port}"]


def test_query_answers_json_lines(address, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text(_jsonl(_rows(7)) + "\n")
    assert run("query", *address, str(file), "--model", "tiny", "--signature", "predict", "--max-rows", "3") == 0
    captured = capsys.readouterr()
    answers = [json.loads(line) for line in captured.out.splitlines()]
    assert [answer["logit"][0] for answer in answers] == pytest.approx(predict_logits(predict_inputs(7)), abs=1e-5)
    assert captured.err == "7 rows answered\n"


def test_query_answers_csv(address, tmp_path, capsys):
    file, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    cells = [f'"{row["dense"]}",{row["user"]},"{row["genres"]}","{row["genres_weights"]}"' for row in _rows(3)]
    file.write_text("dense,user,genres,genres_weights\n" + "\n".join(cells) + "\n")
    arguments = ["--model", "tiny", "--signature", "predict", "--output", str(output)]
    assert run("query", *address, str(file), *arguments) == 0
    header, *lines = output.read_text().splitlines()
    assert header == "logit,probability,version"
    logits = [float(line.split(",")[0]) for line in lines]
    assert logits == pytest.approx(predict_logits(predict_inputs(3)), abs=1e-5)


def test_query_serializes_raw_columns(address, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text(_jsonl([{"user": 50, "dense": [1.0, 2.0]}]))
    assert run("query", *address, str(file), "--model", "tiny") == 0
    assert json.loads(capsys.readouterr().out)["logit"] == [3.5]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*map(json.dumps, _rows(2)), "{"], "rows.jsonl:3: not JSON"),
        ([json.dumps(_rows(1)[0]), "[]"], "rows.jsonl:2: an object of columns is expected"),
        ([json.dumps(row) for row in [*_rows(4)[:3], {**_rows(1)[0], "user": 100}]], "rows.jsonl:4: .*not below 100"),
        ([json.dumps(row) for row in [_rows(1)[0], {"user": 1}]], "rows.jsonl:2: row 0: column 'dense' is missing"),
        ([json.dumps({**_rows(1)[0], "user": 1.5})], "rows.jsonl:1: input 'user', row 0: 1.5"),
    ],
)
def test_query_names_bad_lines(address, tmp_path, capsys, lines, message):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    assert run("query", *address, str(file), "--model", "tiny", "--signature", "predict") == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_query_reads_stdin(address, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(_jsonl([{"steps": 3}, {"steps": 4}])))
    assert run("query", *address, "-", "--model", "tiny", "--signature", "slow") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"steps": 3}, {"steps": 4}]


def test_query_says_that_nobody_is_there(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"x": 1}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert run("query", f"http://127.0.0.1:{port}", str(file), "--timeout-seconds", "0.3") == 2
    assert "Connection refused" in capsys.readouterr().err


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a tool of tools/."""
    program = command()[0]
    return subprocess.run([program, str(ROOT / "tools" / name), *arguments], capture_output=True, text=True)


@pytest.mark.multiprocess
def test_reloads_under_load_for_a_short_time(tmp_path: Path):
    """The whole of it: tools/serve_reload.py --seconds 60 --versions 10 --broken 2."""
    ended = tool("serve_reload.py", "--seconds", "3", "--versions", "3", "--broken", "1", "--model-mebibytes", "96")
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    assert "versions [1, 3, 4]" in ended.stdout
    assert ended.stdout.rstrip().endswith("passed")


def test_a_fuzzed_server_stays_up(server, monkeypatch):
    """More of it, with a look at memory, threads and files: tools/fuzz_server.py --requests 5000."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from fuzz_server import Fuzzer

    fuzzer = Fuzzer(server, random.Random(1))
    for _ in range(300):
        fuzzer.send_one()
    fuzzer.check()
    fuzzer.close()
    assert fuzzer.report.problems == []
    assert sum(fuzzer.report.answers.values()) > 250  # a changed reload that would unload the model is not sent
