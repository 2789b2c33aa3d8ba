"""HTTP/1.1 under the REST interface: bodies in every form, connections that are kept, and clients without manners."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from savedmodels.server import http_server
from savedmodels.server.config import ModelConfig
from savedmodels.server.program import Server
from tests.savedmodels.server.conftest import MAX_MESSAGE_BYTES, PREDICT, READY_SECONDS, Rest, options, post, wait_until
from tests.savedmodels.server.tiny_models import predict_inputs

SLOW = b'{"signature_name": "slow", "inputs": [%d]}'  # answered with the number
POST = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n".encode()


def _chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def test_gzip_bodies(rest):
    body = json.dumps({"signature_name": "predict", "inputs": predict_inputs(3)}).encode()
    plain = rest.send("POST", PREDICT, body)
    assert plain[0] == 200
    packed = gzip.compress(body)
    for encoding in ("gzip", "GZIP"):
        assert rest.send("POST", PREDICT, packed, **{"Content-Encoding": encoding}) == plain
    assert rest.send("POST", PREDICT, body, **{"Content-Encoding": "identity"}) == plain
    members = gzip.compress(body[:10]) + gzip.compress(body[10:]) + gzip.compress(b"")
    assert rest.send("POST", PREDICT, members, **{"Content-Encoding": "gzip"}) == plain


def test_chunked_bodies(rest):
    body = json.dumps({"signature_name": "predict", "inputs": predict_inputs(3)}).encode()
    plain = rest.send("POST", PREDICT, body)
    for pieces, headers in (
        ([body], {}),
        ([body[i : i + 1] for i in range(len(body))], {}),
        ([gzip.compress(body)], {"Content-Encoding": "gzip"}),
    ):
        rest.connection.request("POST", PREDICT, iter(pieces), headers, encode_chunked=True)
        response = rest.connection.getresponse()
        assert (response.status, json.loads(response.read())) == plain
    assert rest.send("GET", "/healthz")[0] == 200  # on the same connection


def test_a_chunked_body_of_many_bytes_is_read_and_has_the_limit(server):
    text = b"x" * (MAX_MESSAGE_BYTES - 100)
    asked = Rest(server.rest_port)
    for size, status in ((0, 200), (200, 413)):
        pieces = (b'{"signature_name": "echo", "inputs": ["', text, b"y" * size, b'"]}')
        asked.connection.request("POST", PREDICT, iter(pieces), encode_chunked=True)
        response = asked.connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == status
    assert answer["error"] == f"The body has more than {MAX_MESSAGE_BYTES} bytes."
    asked.connection.close()


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n", "chunk"),
        (b"Transfer-Encoding: gzip, chunked\r\n", _chunks(b"{}"), "Transfer-Encoding: 'gzip, chunked' is not read"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", _chunks(b"{}"), "Content-Length"),
    ],
    ids=["broken", "packed", "both"],
)
def test_chunks_that_are_refused(server, headers, body, said):
    status, _, answer = _raw(server.rest_port, POST + headers + b"\r\n" + body)
    assert status == 400
    assert said in json.loads(answer)["error"]


def _answers(connection: socket.socket, number: int) -> Iterator[dict]:
    """So many answers of one connection."""
    reader = connection.makefile("rb")
    for _ in range(number):
        assert reader.readline().startswith(b"HTTP/1.1 200 ")
        headers = http.client.parse_headers(reader)
        yield json.loads(reader.read(int(headers["Content-Length"])))
    reader.close()


def test_requests_one_after_another_without_waiting(server):
    """The last one is answered too where the client has closed its half, and then the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=READY_SECONDS) as connection:
        connection.sendall(b"".join(post(PREDICT, SLOW % number) for number in range(100)))
        connection.shutdown(socket.SHUT_WR)
        assert list(_answers(connection, 100)) == [{"outputs": [number]} for number in range(100)]
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (post(PREDICT, SLOW % 1), 200),
        (post(PREDICT, b"{}"), 400),
        (b"no HTTP\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999\r\n\r\n{}", 413),
    ],
    ids=["get", "post", "refused", "broken", "large"],
)
def test_a_client_that_closes_its_half_at_once_is_answered(server, data, status):
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=READY_SECONDS) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert int(answer.split()[1]) == status
    assert json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("when", ["begin", "end"])
def test_a_client_may_close_its_half_before_a_request_begins_and_after_it_has_ended(server, monkeypatch, when):
    """Between these and aiohttp's own queue other things run: that the end comes just there is made sure of here."""
    plain = getattr(http_server._Connection, when)

    def closed_just_then(self, *arguments):
        if when == "begin":
            self.eof_received()
        plain(self, *arguments)
        if when == "end":
            self.eof_received()

    monkeypatch.setattr(http_server._Connection, when, closed_just_then)
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=READY_SECONDS) as connection:
        connection.sendall(post(PREDICT, SLOW % 1))
        assert list(_answers(connection, 1)) == [{"outputs": [1]}]
        assert connection.recv(1) == b""


def test_a_body_that_is_cut_off_has_no_answer(server):
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=READY_SECONDS) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


@pytest.mark.parametrize(("headers", "kept"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
def test_http_1_0_keeps_a_connection_where_it_is_asked_to(server, headers, kept):
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=READY_SECONDS) as connection:
        for _ in range(2 if kept else 1):
            connection.sendall(b"GET /healthz HTTP/1.0\r\n" + headers + b"\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert (response.status, json.loads(response.read())) == (200, {"live": True})
            assert response.headers.get("Connection") == ("keep-alive" if kept else None)
        if not kept:
            assert connection.recv(1) == b""


def test_an_offer_of_http_2_is_passed_over(rest):
    """Java's client makes it with its first request."""
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
    assert rest.send("POST", PREDICT, SLOW % 1, **offer) == (200, {"outputs": [1]})
    assert rest.send("POST", PREDICT, SLOW % 2) == (200, {"outputs": [2]})


def test_silent_connections_and_clients_that_do_not_read_are_closed(versions):
    configs = [ModelConfig(name="tiny", base_path=versions, num_latest=None, versions=(1,))]
    with Server(configs, options(idle_seconds=0.3, max_message_bytes=2**24)) as server:
        assert server.wait_until_ready(READY_SECONDS)
        address = ("127.0.0.1", server.rest_port)
        with socket.create_connection(address, timeout=READY_SECONDS) as silent:
            assert silent.recv(1) == b""
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
            deaf.settimeout(READY_SECONDS)
            deaf.connect(address)
            text = json.dumps({"signature_name": "echo", "inputs": ["x" * 2**22]}).encode()
            deaf.sendall(post(PREDICT, text))
            wait_until(lambda: server._http.num_working == 1)
            wait_until(lambda: server._http.num_working == 0)
            wait_until(lambda: server._http.num_connections == 0)


def _packed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)  # the same in every process that collects the tests


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (_packed(b'{"instances": [1]}')[:-5], 400, "gzip stream is cut off"),
        (_packed(b"{}") + b"more", 400, "The body is not gzip"),
        (b'{"instances": [1]}', 400, "The body is not gzip"),
        (
            _packed(b" " * (MAX_MESSAGE_BYTES + 1)),
            413,
            f"more than {MAX_MESSAGE_BYTES} bytes once it is unpacked",
        ),
        (_packed(b"[" * 1_000_000), 400, "takes more than 60,000,000 bytes"),
    ],
    ids=["cut", "more", "plain", "bomb", "lists"],
)
def test_gzip_bodies_that_are_refused(server, body, status, said):
    asked = Rest(server.rest_port)
    answer = asked.send("POST", PREDICT, body, **{"Content-Encoding": "gzip"})
    asked.connection.close()
    assert answer[0] == status
    assert said in answer[1]["error"]


def test_head_has_the_headers_of_get(rest):
    status, _ = rest.send("GET", "/v1/models/tiny")
    for path, expected in (("/v1/models/tiny", status), ("/v1/models/other", 404), ("/healthz", 200)):
        rest.connection.request("HEAD", path)
        response = rest.connection.getresponse()
        assert response.status == expected
        assert int(response.headers["Content-Length"]) > 10
        assert response.read() == b""


def test_options(rest, versions):
    rest.connection.request("OPTIONS", PREDICT, headers={"Origin": "http://page.example"})
    response = rest.connection.getresponse()
    assert (response.status, response.read(), response.headers["Allow"]) == (200, b"", "GET, HEAD, POST, OPTIONS")
    assert "Access-Control-Allow-Origin" not in response.headers
    configs = [ModelConfig(name="tiny", base_path=versions)]
    with Server(configs, options(enable_cors_support=True)) as server:
        asked = Rest(server.rest_port)
        for method, path in (("OPTIONS", PREDICT), ("GET", "/healthz"), ("GET", "/nothing"), ("PUT", PREDICT)):
            asked.connection.request(method, path, headers={"Origin": "http://page.example"})
            response = asked.connection.getresponse()
            response.read()
            assert response.headers["Access-Control-Allow-Origin"] == "*", method
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
        asked.connection.close()


def test_unknown_methods_are_405(rest):
    status, answer = rest.send("PUT", PREDICT, {})
    assert (status, answer) == (405, {"error": "GET and POST are allowed."})


def _raw(port: int, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes; the answer, after which the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=READY_SECONDS) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
        assert connection.recv(1) == b""
        return response.status, dict(response.getheaders()), body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Transfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: -2\r\n", 400),
        (b"Content-Length: two\r\n", 400),
        (b"Content-Length: %d\r\n" % (MAX_MESSAGE_BYTES + 1), 413),
        (b"Content-Length: 2\r\nContent-Encoding: br\r\n", 415),
        (b"Content-Length: 2\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n", 415),
    ],
)
def test_a_body_of_unknown_length_is_not_read(server, headers, status):
    answered, _, body = _raw(server.rest_port, POST + headers + b"\r\n{}")
    assert answered == status
    assert json.loads(body)["error"]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/9.9\r\nHost: x", 400),
        (b"nonsense words in a line", 400),
        (b"GET / HTTP/1.1", 400),  # no Host
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200, 400),
        (b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x", 411),
    ],
    ids=["version", "words", "host", "line", "headers", "length"],
)
def test_broken_http_is_answered_in_json(server, line, status):
    answered, headers, body = _raw(server.rest_port, line + b"\r\n\r\n")
    assert (answered, headers["Content-Type"]) == (status, "application/json")
    assert json.loads(body)["error"]


def test_expect_100_continue_is_answered_before_the_body(server):
    body = b'{"signature_name": "slow", "inputs": [1]}'
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        headers = f"Host: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n"
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\n{headers}\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert json.loads(response.read()) == {"outputs": [1]}
