"""HTTP/1.1 for the REST interface: connections that are kept, sizes that are checked, an end that waits."""

from __future__ import annotations

import contextlib
import http
import io
import logging
import re
import select
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from savedmodels.server.errors import HTTP_STATUS, ServingError
from savedmodels.server.inference import LARGE_REQUEST_BYTES
from savedmodels.server.json_requests import JsonMemory
from savedmodels.server.lifetimes import Lifetime, Share
from savedmodels.server.options import ServerOptions
from savedmodels.server.packed_bodies import BodyTooLargeError, GzipBody
from savedmodels.server.rest_service import HttpAnswer, RestService, json_answer

logger = logging.getLogger("tfdlrm.serve")

_LENGTH = re.compile(r"[0-9]{1,18}")
METHODS = "GET, HEAD, POST, OPTIONS"
ENCODINGS = ("identity", "gzip")
# for pages of any origin, as TensorFlow Serving's --enable_cors_support
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": "Content-Type, Content-Encoding, Accept",
}
MAX_CONNECTIONS = 1024  # a thread each
TURN_SECONDS = 0.01
LINGER_SECONDS = 2.0
LINGER_BYTES = 2**16  # thrown away at a time
READ_BYTES = 2**16
HEADER_SECONDS = 10.0  # from a request's first byte to the end of its headers
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
STALL_SECONDS = 5.0  # a large body, without a byte for so long, is given up


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tfdlrm-serve"
    sys_version = ""
    wbufsize = -1  # headers and body leave together
    disable_nagle_algorithm = True
    server: HttpServer

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.idle_seconds)
        self._incoming = _Incoming(self.connection)
        self.rfile.close()
        self.rfile = io.BufferedReader(self._incoming)  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        """One request; a connection that breaks off is nobody's error."""
        self._incoming.wait_for_request(self.server.idle_seconds)
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def parse_request(self) -> bool:
        """A request's line and headers; HTTP/0.9, whose answers have no status, is refused."""
        if not super().parse_request():
            return False
        if self.request_version == "HTTP/0.9":
            self.send_error(http.HTTPStatus.BAD_REQUEST, "HTTP/1.1 is expected.")
            return False
        return True

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_OPTIONS(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that nobody reads
        self._send(HttpAnswer(status=http.HTTPStatus.OK, body=b"", headers={"Allow": METHODS}))
        self.wfile.flush()

    def _answer(self, method: str) -> None:
        with self.server.working(self.connection):
            life = Lifetime(self.server.request_seconds, self._has_gone)
            with contextlib.ExitStack() as held:
                try:
                    body = self._read_body(method, life, held)
                except BodyTooLargeError as error:
                    self._refuse(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error.message)
                    return
                except ServingError as error:
                    self._refuse(HTTP_STATUS[error.code], error.message)
                    return
                if body is not None:
                    self._send(self.server.service.answer(method, self.path, body, life))
            self.wfile.flush()

    def _has_gone(self) -> bool:
        """Whether the client has closed its end: its next bytes, if any, are left where they are."""
        ready = select.poll()
        ready.register(self.connection, select.POLLIN)
        try:
            return bool(ready.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # what follows on the connection is the body that was not read
        self._send(json_answer(status, {"error": message}))
        self._linger()

    def _read_body(self, method: str, life: Lifetime, held: contextlib.ExitStack) -> bytearray | None:
        """The body; None where there was an answer already, after which the connection is closed.

        Raises:
            ServingError: it did not arrive in time, is not what its encoding says, or takes too much memory.
        """
        refusal = self._refusal(method)
        if refusal is not None:
            self._refuse(*refusal)
            return None
        length, limit = int(self.headers.get("Content-Length", 0)), self.server.max_message_bytes
        packed = GzipBody(limit) if self.headers.get("Content-Encoding", "").lower() == "gzip" else None
        is_large = length > LARGE_REQUEST_BYTES
        if is_large:
            # nobody knows how much a packed one will be
            held.enter_context(self.server.body_bytes.take(limit if packed else length, life))
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(http.HTTPStatus.CONTINUE)
            self.end_headers()
            self.wfile.flush()
        body, memory, num_read = bytearray(), JsonMemory(), 0
        # what a large body has of the budget others wait for
        longest = STALL_SECONDS if is_large else self.server.idle_seconds
        while num_read < length:
            self._incoming.wait(longest, life.remaining)
            try:
                piece = self.rfile.read1(min(length - num_read, READ_BYTES))
            except TimeoutError:
                raise _too_slow(num_read, length) from None
            if not piece:  # the client has gone
                self.close_connection = True
                return None
            num_read += len(piece)
            if packed is not None:
                piece = packed.unpack(piece)
            memory.add(piece)
            body += piece
            if not is_large and len(body) > LARGE_REQUEST_BYTES:
                is_large = True
                held.enter_context(self.server.body_bytes.take(limit, life))
            if not life.remaining:
                raise _too_slow(num_read, length)
        if packed is not None:
            packed.end()
        self.connection.settimeout(self.server.idle_seconds)
        return body

    def _linger(self) -> None:
        """Ends the answer and throws away what the client still sends, for a time: a socket that is closed with unread
        bytes resets the connection, and the reset can overtake the answer."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self._incoming.wait(LINGER_SECONDS, LINGER_SECONDS)
        end = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(OSError):
            while time.monotonic() < end and self.rfile.read1(LINGER_BYTES):
                pass

    def _refusal(self, method: str) -> tuple[int, str] | None:
        """Why a body is not read."""
        lengths = set(self.headers.get_all("Content-Length", []))
        limit = self.server.max_message_bytes
        if "Transfer-Encoding" in self.headers:
            return http.HTTPStatus.LENGTH_REQUIRED, "Send Content-Length; chunks are not read here."
        if not lengths and method == "POST":
            return http.HTTPStatus.LENGTH_REQUIRED, "Send Content-Length."
        if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
            return http.HTTPStatus.BAD_REQUEST, f"Content-Length: {sorted(lengths)} is no one length."
        encodings = self.headers.get_all("Content-Encoding", [])
        if len(encodings) > 1 or any(encoding.lower() not in ENCODINGS for encoding in encodings):
            return http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, or by Content-Encoding: gzip."
        length = int(lengths.pop()) if lengths else 0
        if length > limit:
            return http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has {length} bytes; {limit} are allowed."
        return None

    def handle_expect_100(self) -> bool:
        """Lets `_read_body` say it, once the size is known."""
        return True

    def _send(self, answer: HttpAnswer) -> None:
        if self.server.is_draining:
            self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in {**answer.headers, **(CORS_HEADERS if self.server.allows_cors else {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the HTTP layer itself, as JSON like all others."""
        headers = {}
        if code == http.HTTPStatus.NOT_IMPLEMENTED:  # a method that there is not
            code, message = http.HTTPStatus.METHOD_NOT_ALLOWED, "GET and POST are allowed."
            headers = {"Allow": METHODS}
        elif code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:  # a version of HTTP that there is not
            code = http.HTTPStatus.BAD_REQUEST
        self.close_connection = True
        self.request_version = self.protocol_version  # of a line that could not be read it is 0.9, which has no headers
        if not hasattr(self, "command"):
            self.command = ""
        self._send(json_answer(code, {"error": message or http.HTTPStatus(code).phrase}, **headers))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


class _Incoming(io.RawIOBase):
    """What a client sends, within a time: a byte now and then keeps no connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._longest, self._end = 0.0, float("inf")
        self._is_next = False

    def wait_for_request(self, idle_seconds: float) -> None:
        """For the next request so long; once it has begun, for the rest of its headers `HEADER_SECONDS`."""
        self._longest, self._end, self._is_next = idle_seconds, float("inf"), True

    def wait(self, longest: float, total: float) -> None:
        """So long for the next bytes, and for all of them."""
        self._longest, self._end, self._is_next = longest, time.monotonic() + total, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = min(self._longest, self._end - time.monotonic())
        if left <= 0:
            raise TimeoutError("the client is too slow")
        self._connection.settimeout(left)
        number = self._connection.recv_into(buffer)
        if self._is_next:
            self.wait(HEADER_SECONDS, HEADER_SECONDS)
        return number


def _too_slow(num_bytes: int, length: int) -> ServingError:
    return ServingError("DEADLINE_EXCEEDED", f"{num_bytes} of {length} bytes of the body came in time.")


class HttpServer(ThreadingHTTPServer):
    """Binds the REST port when it is made; `start` begins to answer.

    Args:
        service: answers requests.
        options: addresses and limits.

    Raises:
        OSError: the port is in use, or the host is none of this machine.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, service: RestService, options: ServerOptions) -> None:
        self.service = service
        self.max_message_bytes = options.max_message_bytes
        self.body_bytes = Share(options.max_message_bytes)  # of all large bodies that are being worked on
        self.request_seconds = options.request_seconds
        self.idle_seconds = options.idle_seconds
        self.allows_cors = options.enable_cors_support
        self.is_draining = False
        self._lock = threading.Lock()
        self._num_working = 0
        self._connections: set[socket.socket] = set()
        self._waiting: dict[socket.socket, None] = {}  # of these those between requests or within headers, by age
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="rest", daemon=True)
        if ":" in options.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((options.host, options.rest_port), _Handler)
        except OSError as error:
            raise OSError(
                f"REST port {options.rest_port} of {options.host} cannot be bound: {error.strerror}. Give another one "
                "with --rest-port, or 0 for any that is free."
            ) from error

    def server_bind(self) -> None:
        """Without the look-up of the host's name that Python's own does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    @contextlib.contextmanager
    def working(self, connection: socket.socket) -> Iterator[None]:
        """Counts a request for the time of a block."""
        with self._lock:
            self._num_working += 1
            self._waiting.pop(connection, None)
        try:
            yield
        finally:
            with self._lock:
                self._num_working -= 1
                if connection in self._connections:
                    self._waiting[connection] = None

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, up to `MAX_CONNECTIONS`; of more, the one that was silent longest goes.

        Where all are being answered, the new one is told to come again.
        """
        with self._lock:
            is_full = len(self._connections) >= MAX_CONNECTIONS
            oldest = next(iter(self._waiting), None) if is_full else None
            if oldest is not None:
                del self._waiting[oldest]
                self._connections.discard(oldest)
                with contextlib.suppress(OSError):  # its thread reads the end, and closes it
                    oldest.shutdown(socket.SHUT_RDWR)
            if oldest is not None or not is_full:
                self._connections.add(request)
                self._waiting[request] = None
        if is_full:
            logger.warning("%d connections are open; one was closed for another", MAX_CONNECTIONS)
        if is_full and oldest is None:
            with contextlib.suppress(OSError):
                request.send(FULL, socket.MSG_DONTWAIT)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The end of a connection."""
        with self._lock:
            self._connections.discard(request)
            self._waiting.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection's own end is no error of the server."""
        logger.debug("a connection ended", exc_info=True)

    def stop_listening(self) -> None:
        """Takes no new connections."""
        self.is_draining = True
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()

    def drain(self, timeout_seconds: float) -> bool:
        """After `stop_listening`: lets requests end, then closes what is open.

        Returns:
            Whether all requests have ended.
        """
        deadline = time.monotonic() + timeout_seconds
        while self._num_working and time.monotonic() < deadline:
            time.sleep(TURN_SECONDS)
        is_idle = self._num_working == 0
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it
        return is_idle
