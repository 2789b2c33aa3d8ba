"""Work stops at a request's deadline and once its client has gone; large requests take turns."""

from __future__ import annotations

import json
import socket
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest

from savedmodels.server import http_server, request_bodies
from savedmodels.server.config import ModelConfig
from savedmodels.server.errors import ServingError
from savedmodels.server.json_requests import MAX_JSON_MEMORY
from savedmodels.server.lifetimes import Lifetime, Share
from savedmodels.server.program import Server
from savedmodels.wire.protos import PREDICTION_SERVICE
from tests.savedmodels.server.conftest import READY_SECONDS, Rest, options, post, wait_until
from tests.savedmodels.server.test_grpc_service import request

HOUR = 3600.0


@pytest.fixture(scope="module")
def patient(versions):
    """A server whose requests may take an hour, and whose bodies may be larger than what it reads of them."""
    configs = [ModelConfig(name="tiny", base_path=versions, num_latest=None, versions=(1,))]
    with Server(configs, options(request_seconds=HOUR, max_message_bytes=2**27, num_threads=2)) as running:
        assert running.wait_until_ready(READY_SECONDS)
        yield running


def num_running(server: Server) -> int:
    return server._inference._num_running


def test_an_answer_an_error_and_an_end():
    future: Future[int] = Future()
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(Lifetime(60.0).result, future)
        future.set_result(3)
        assert asked.result() == 3
    failed: Future[int] = Future()
    failed.set_exception(TimeoutError("the model's own"))
    with pytest.raises(TimeoutError, match="the model's own"):
        Lifetime(60.0).result(failed)
    with pytest.raises(ServingError) as late:
        Lifetime(0.0).result(Future())
    assert late.value.code == "DEADLINE_EXCEEDED"
    life = Lifetime(60.0, lambda: True)
    life.check()  # not yet: it may have closed its half alone
    with pytest.raises(ServingError) as gone:
        life.result(Future())
    assert gone.value.code == "CANCELLED"


def test_a_share_is_waited_for():
    share, life = Share(10), Lifetime(60.0)
    with share.take(7, life), share.take(3, life) as rest, ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(share.take, 2, life)
        assert not waiting.done()
        rest.release()
        rest.release()  # once
        with waiting.result(), pytest.raises(ServingError, match="was not answered within its time"):
            share.take(2, Lifetime(0.01))
    share.take(1000, life).release()  # all of it
    with share.take(0, life), share.take(10, life):
        pass


def test_a_rest_client_that_goes_ends_its_work(patient, gate):
    body = json.dumps({"signature_name": "held", "inputs": gate.inputs}).encode()
    with socket.create_connection(("127.0.0.1", patient.rest_port)) as connection:
        connection.sendall(post("/v1/models/tiny:predict", body))
        wait_until(lambda: num_running(patient) == 1)
    wait_until(lambda: num_running(patient) == 0)  # nobody opens the gate


def test_a_grpc_client_that_goes_ends_its_work(patient, gate):
    with grpc.insecure_channel(f"127.0.0.1:{patient.grpc_port}") as channel:
        asked = channel.unary_unary(f"/{PREDICTION_SERVICE}/Predict").future(
            request("held", gate=gate.inputs).SerializeToString()
        )
        wait_until(lambda: num_running(patient) == 1)
        asked.cancel()
        wait_until(lambda: num_running(patient) == 0)


def test_a_deadline_ends_the_work(patient, gate):
    message = request("held", gate=gate.inputs).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{patient.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(f"/{PREDICTION_SERVICE}/Predict")(message, timeout=0.3)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: num_running(patient) == 0)


def test_what_json_would_take_is_seen_while_it_arrives(patient):
    """A client that has sent enough of it gets its answer, whatever it says is still to come."""
    with socket.create_connection(("127.0.0.1", patient.rest_port), timeout=READY_SECONDS) as connection:
        head = f"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {2**27}\r\n\r\n"
        connection.sendall(head.encode() + b"[]," * (MAX_JSON_MEMORY // 124 + 1000))
        answer = connection.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Send fewer rows at a time" in answer


def test_a_body_that_comes_too_slowly(versions):
    configs = [ModelConfig(name="tiny", base_path=versions, num_latest=None, versions=(1,))]
    with Server(configs, options(request_seconds=0.3)) as server:
        assert server.wait_until_ready(READY_SECONDS)
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=READY_SECONDS) as connection:
            connection.sendall(b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            answer = connection.recv(2**16)  # it sends no more
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"1 of 1000 bytes of the body came in time" in answer


def test_a_large_body_that_stalls_gives_its_share_back(patient, monkeypatch):
    monkeypatch.setattr(request_bodies, "STALL_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", patient.rest_port), timeout=READY_SECONDS) as stalled:
        stalled.sendall(f"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {2**27}\r\n\r\n".encode())
        rest = Rest(patient.rest_port)
        assert rest.predict({"signature_name": "echo", "inputs": ["x" * 2**20]})[0] == 200
        rest.connection.close()
        assert b"0 of 134217728 bytes of the body came in time" in stalled.recv(2**16)


def test_large_requests_are_parsed_one_at_a_time_and_small_ones_beside_them(patient):
    turn = patient._inference.turn(2**20, Lifetime(HOUR))
    rest, other = Rest(patient.rest_port), Rest(patient.rest_port)
    large = {"signature_name": "echo", "inputs": ["x" * 2**20]}
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(other.predict, large)
        assert rest.predict({"signature_name": "slow", "inputs": [1]}) == (200, {"outputs": [1]})
        assert not asked.done()
        turn.release()
        assert asked.result()[0] == 200
    rest.connection.close()
    other.connection.close()
    message = request("slow", steps=[1] * 50_000).SerializeToString()
    with (
        patient._inference.turn(2**20, Lifetime(HOUR)),
        grpc.insecure_channel(f"127.0.0.1:{patient.grpc_port}") as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        channel.unary_unary(f"/{PREDICTION_SERVICE}/Predict")(message, timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_headers_have_a_time_however_they_drip(patient, monkeypatch):
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", patient.rest_port), timeout=READY_SECONDS) as dripping:
        dripping.sendall(b"POST /v1/models/tiny:predict HTTP/1.1\r\n")

        def has_ended() -> bool:
            try:
                dripping.sendall(b"x")
                return dripping.recv(1, socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        wait_until(has_ended)


def test_of_too_many_connections_the_one_that_was_silent_longest_goes(patient, monkeypatch, gate):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    address = ("127.0.0.1", patient.rest_port)
    busy, rest = socket.create_connection(address), Rest(patient.rest_port)
    busy.sendall(
        post("/v1/models/tiny:predict", json.dumps({"signature_name": "held", "inputs": gate.inputs}).encode())
    )
    wait_until(lambda: num_running(patient) == 1)
    silent = [socket.create_connection(address, timeout=READY_SECONDS) for _ in range(4)]
    assert rest.send("GET", "/healthz") == (200, {"live": True})  # and its connection is kept
    assert [connection.recv(1) for connection in silent[:3]] == [b""] * 3
    gate.open()
    busy.settimeout(READY_SECONDS)
    assert busy.recv(100).startswith(b"HTTP/1.1 200 ")
    for connection in (busy, rest.connection, *silent):
        connection.close()


def test_where_all_connections_are_busy_a_new_one_is_told(patient, monkeypatch, gate):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 1)
    address = ("127.0.0.1", patient.rest_port)
    with socket.create_connection(address) as busy:
        body = json.dumps({"signature_name": "held", "inputs": gate.inputs}).encode()
        busy.sendall(post("/v1/models/tiny:predict", body))
        wait_until(lambda: num_running(patient) == 1)
        with socket.create_connection(address, timeout=READY_SECONDS) as late:
            assert late.recv(100).startswith(b"HTTP/1.1 503 ")
    wait_until(lambda: num_running(patient) == 0)
