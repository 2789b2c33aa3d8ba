"""HTTP/1.1 for the REST interface on aiohttp: sizes and times that are checked, and an end that waits."""

from __future__ import annotations

import asyncio
import http
import logging
import math
import socket
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from aiohttp import EMPTY_PAYLOAD, hdrs, web

from savedmodels.server.lifetimes import Lifetime
from savedmodels.server.options import ServerOptions
from savedmodels.server.request_bodies import BodyReader, RefusedError
from savedmodels.server.rest_service import HttpAnswer, RestService, json_answer
from tfdlrm.checks import shortened

logger = logging.getLogger("tfdlrm.serve")

METHODS = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_POST, hdrs.METH_OPTIONS)
ALLOWED = ", ".join(METHODS)
# for pages of any origin, as TensorFlow Serving's --enable_cors_support
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": ALLOWED,
    "Access-Control-Allow-Headers": "Content-Type, Content-Encoding, Accept",
}
SERVER_NAME = "tfdlrm-serve"
MAX_CONNECTIONS = 1024  # each may have a request that waits in a thread
BACKLOG = 128
TURN_SECONDS = 0.01
LINGER_SECONDS = 2.0  # what a client still sends after a refusal is read and thrown away for so long
HEADER_SECONDS = 10.0  # from a request's first byte to the end of its headers
LOOK_SECONDS = 0.25  # between two looks for connections whose time is over
CLOSE_SECONDS = 1.0  # for connections to send what is in their buffers, at the end
NEVER_SECONDS = 1e9  # aiohttp's own time for silent connections: `_Connection` has another for headers
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Connection(web.RequestHandler):
    """A client's connection: aiohttp's, with times for headers, and with clients that close their half first."""

    def __init__(self, connections: _Connections, **settings: Any) -> None:
        super().__init__(connections, **settings)
        self._open = connections
        self._is_answering = False
        self._body = EMPTY_PAYLOAD  # of the request that is answered, or was last
        self.deadline = math.inf  # of the loop's clock, after which it is aborted
        self._has_begun = False  # some of a request's headers are there
        self._is_at_end = False
        self._num_ended = 0

    def has_gone(self) -> bool:
        """Whether the client has closed its end."""
        return self._is_at_end or self.transport is None or self.transport.is_closing()

    def abort(self) -> None:
        """Ends it, whatever is still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def give(self, seconds: float) -> None:
        """From now so long to what it is doing."""
        self.deadline = self._loop.time() + seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.give(self._open.idle_seconds)
        self._open.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data and not self._is_answering and not self._has_begun:
            self._has_begun = True
            self.give(HEADER_SECONDS)
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it; aiohttp has no answer
        """What a client has asked before it closed its half is answered."""
        self._is_at_end = True
        self._hang_up_at_the_end()
        self._cut_off()
        return self.transport is not None and not self.transport.is_closing()

    def _cut_off(self) -> None:
        """The rest of a body that has not come; whoever reads it is told."""
        if not self._body.is_eof():
            if self._is_answering:
                self._body.set_exception(ConnectionResetError("the client has closed its half"))
            self._body.feed_eof()

    def _hang_up_at_the_end(self) -> None:
        # what was read and not ended may wait in aiohttp's queue, or be on its way from there to `begin`
        if self._is_at_end and self._num_ended == self._request_count and self.transport is not None:
            self.transport.close()

    def begin(self, request: web.BaseRequest) -> None:
        """Its headers are there."""
        self._is_answering, self._body = True, request.content
        self._has_begun, self.deadline = False, math.inf
        self._open.work(self)
        if self._is_at_end:
            self._cut_off()

    def end(self) -> None:
        """It is answered."""
        self._is_answering = False
        self.give(self._open.idle_seconds)
        self._open.wait(self)
        self._num_ended += 1
        self._hang_up_at_the_end()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = http.HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Errors of the HTTP layer itself, as JSON like all others."""
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("a request failed", exc_info=exc)
            message = None
        if request.writer.output_size:
            raise ConnectionError("some of an answer was sent already")
        # what the parser says goes on with the bytes that it was given
        said = (message or "").strip().partition("\n")[0].rstrip(":")
        text = f"The request is not HTTP/1.1: {shortened(said)}" if said else http.HTTPStatus(status).phrase
        return self._open.response(json_answer(status, {"error": text}), is_last=True)


class _Connections(web.Server):
    """All of them, of which the longest silent one makes room where there are too many."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.handle)
        self.idle_seconds = server.idle_seconds
        self.response = server.response
        self.num_working = 0
        self._silent: dict[_Connection, None] = {}  # between requests or within headers, by age
        self.all: set[_Connection] = set()
        self._looking = self._loop.create_task(self._abort_late_ones())  # a task that nobody holds may be dropped

    def __call__(self) -> _Connection:
        return _Connection(
            self,
            loop=self._loop,
            logger=logger,
            access_log=None,
            keepalive_timeout=NEVER_SECONDS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,  # by `GzipBody`, with a limit
        )

    def add(self, connection: _Connection) -> None:
        """A new connection; where all others are being answered, it is told to come again."""
        if len(self.all) >= MAX_CONNECTIONS:
            logger.warning("%d connections are open; one was closed for another", MAX_CONNECTIONS)
            oldest = next(iter(self._silent), None)
            if oldest is None:
                assert connection.transport is not None
                connection.transport.write(FULL)
                connection.transport.close()
                return
            self.discard(oldest)
            oldest.abort()
        self.all.add(connection)
        self._silent[connection] = None

    def discard(self, connection: _Connection) -> None:
        """The end of a connection."""
        self.all.discard(connection)
        self._silent.pop(connection, None)

    async def _abort_late_ones(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._loop.time()
            for connection in [each for each in self.all if each.deadline < now]:
                connection.abort()

    def work(self, connection: _Connection) -> None:
        """A request of it is being answered."""
        self.num_working += 1
        self._silent.pop(connection, None)

    def wait(self, connection: _Connection) -> None:
        """For its next request."""
        self.num_working -= 1
        if connection in self.all:
            self._silent[connection] = None


class HttpServer:
    """Binds the REST port when it is made; `start` begins to answer.

    Sockets are read and written in a thread of its own, by aiohttp; each request is answered in one of a pool.

    Args:
        service: answers requests.
        options: addresses and limits.

    Raises:
        OSError: the port is in use, or the host is none of this machine.
    """

    def __init__(self, service: RestService, options: ServerOptions) -> None:
        self._service = service
        self._request_seconds = options.request_seconds
        self.idle_seconds = options.idle_seconds
        self._allows_cors = options.enable_cors_support
        self._is_draining = False
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        try:
            self._socket = socket.create_server((options.host, options.rest_port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise OSError(
                f"REST port {options.rest_port} of {options.host} cannot be bound: {error.strerror}. Give another one "
                "with --rest-port, or 0 for any that is free."
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)
        self._executor = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="rest")
        self._bodies = BodyReader(options.max_message_bytes, options.idle_seconds, self._run)
        self._connections: _Connections | None = None
        self._listening: asyncio.Server | None = None

    @property
    def num_connections(self) -> int:
        """Open ones."""
        return 0 if self._connections is None else len(self._connections.all)

    @property
    def num_working(self) -> int:
        """Requests that are being answered."""
        return 0 if self._connections is None else self._connections.num_working

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()
        self._call(self._listen())

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> None:
        self._connections = _Connections(self)
        self._listening = await self._loop.create_server(self._connections, sock=self._socket, backlog=BACKLOG)

    def stop_listening(self) -> None:
        """Takes no new connections."""
        self._is_draining = True
        if self._listening is not None:
            self._call(self._stop_listening())
        self._socket.close()

    async def _stop_listening(self) -> None:
        assert self._listening is not None
        self._listening.close()

    def drain(self, timeout_seconds: float) -> bool:
        """After `stop_listening`: lets requests end, then closes what is open.

        Returns:
            Whether all requests have ended.
        """
        if self._connections is None:
            self._loop.close()
            return True
        deadline = time.monotonic() + timeout_seconds
        while self.num_working and time.monotonic() < deadline:
            time.sleep(TURN_SECONDS)
        is_idle = self.num_working == 0
        self._call(self._close())
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return is_idle

    async def _close(self) -> None:
        assert self._connections is not None
        for connection in self._connections.all:
            if connection.transport is not None:
                connection.transport.close()  # once its buffer is sent
        end = self._loop.time() + CLOSE_SECONDS
        while self._connections.connections and self._loop.time() < end:
            await asyncio.sleep(TURN_SECONDS)
        for connection in list(self._connections.all):
            connection.abort()
        # what is left waits for a thread that does not look for its client
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request whose headers are there."""
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.begin(request)
        life = Lifetime(self._request_seconds, connection.has_gone)
        try:
            try:
                response = self.response(await self._answer(request, life))
                is_refused = False
            except RefusedError as error:
                response = self.response(json_answer(error.status, {"error": error.message}), is_last=True)
                is_refused = True
            connection.give(self.idle_seconds)
            await response.prepare(request)
            await response.write_eof()
            if is_refused and connection.transport is not None:
                connection.transport.write_eof()  # what it still sends is thrown away
        except ConnectionError:
            connection.abort()
            return web.Response()  # for nobody
        finally:
            connection.end()
        return response

    async def _answer(self, request: web.BaseRequest, life: Lifetime) -> HttpAnswer:
        if request.method == hdrs.METH_OPTIONS:
            return HttpAnswer(status=http.HTTPStatus.OK, body=b"", headers={"Allow": ALLOWED})
        if request.method not in METHODS:
            return json_answer(
                http.HTTPStatus.METHOD_NOT_ALLOWED, {"error": "GET and POST are allowed."}, Allow=ALLOWED
            )
        with ExitStack() as held:
            method, body = hdrs.METH_GET, bytearray()
            if request.method == hdrs.METH_POST:
                method, body = hdrs.METH_POST, await self._bodies.read(request, life, held)
            answer: HttpAnswer = await self._run(self._service.answer, method, request.raw_path, body, life)
            return answer

    async def _run(self, function: Any, *arguments: Any) -> Any:
        """Calls what may wait, or takes its time, in another thread."""
        return await self._loop.run_in_executor(self._executor, function, *arguments)

    def response(self, answer: HttpAnswer, *, is_last: bool = False) -> web.Response:
        """What is sent for an answer, the last one of its connection or not."""
        headers = {"Content-Type": answer.content_type, "Server": SERVER_NAME, **answer.headers}
        if self._allows_cors:
            headers.update(CORS_HEADERS)
        response = web.Response(status=answer.status, body=answer.body, headers=headers)
        if is_last or self._is_draining:
            response.force_close()
        return response
