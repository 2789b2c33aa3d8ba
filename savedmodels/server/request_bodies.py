"""The body of an HTTP request, whole or in chunks: never beyond a size, a time or a share of memory."""

from __future__ import annotations

import asyncio
import http
import zlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from aiohttp import HttpVersion11, hdrs, web

from savedmodels.server.errors import HTTP_STATUS, ServingError
from savedmodels.server.inference import LARGE_REQUEST_BYTES
from savedmodels.server.json_requests import JsonMemory
from savedmodels.server.lifetimes import Lifetime, Share
from tfdlrm.checks import quoted

GZIP_BITS = 16 + zlib.MAX_WBITS
ENCODINGS = ("identity", "gzip")
STALL_SECONDS = 5.0  # a large body, without a byte for so long, is given up
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RefusedError(Exception):
    """A body that is not read to its end.

    Args:
        status: of the answer.
        message: of it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class GzipBody:
    """Unpacks a body.

    Args:
        max_bytes: that it may have once it is unpacked.

    Example:
        >>> body = GzipBody(100)
        >>> body.unpack(gzip.compress(b"{}"))
        b'{}'
        >>> body.end()
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._stream = zlib.decompressobj(GZIP_BITS)

    def unpack(self, piece: bytes) -> bytes:
        """What a piece holds.

        Raises:
            RefusedError: it is more than the limit, with what came before; or no gzip.
        """
        unpacked = b""
        while piece:
            if self._stream.eof:  # another member
                self._stream = zlib.decompressobj(GZIP_BITS)
            try:
                # one byte more than is allowed tells that there are more
                unpacked += self._stream.decompress(piece, self._max_bytes - self._num_bytes - len(unpacked) + 1)
            except zlib.error as error:
                raise RefusedError(http.HTTPStatus.BAD_REQUEST, f"The body is not gzip: {error}.") from None
            if self._num_bytes + len(unpacked) > self._max_bytes:
                raise _too_large(f"The body has more than {self._max_bytes} bytes once it is unpacked.")
            piece = self._stream.unused_data
        self._num_bytes += len(unpacked)
        return unpacked

    def end(self) -> None:
        """After the last piece.

        Raises:
            RefusedError: the stream is not at its end.
        """
        if not self._stream.eof:
            raise RefusedError(http.HTTPStatus.BAD_REQUEST, "The body's gzip stream is cut off.")


class BodyReader:
    """Reads bodies, of which large ones share as many bytes as one may have.

    Args:
        max_bytes: of a body, as it comes and once it is unpacked.
        idle_seconds: without a byte, after which a body is given up.
        run: calls a function in another thread.
    """

    def __init__(self, max_bytes: int, idle_seconds: float, run: Callable[..., Awaitable[Any]]) -> None:
        self._max_bytes, self._idle_seconds, self._run = max_bytes, idle_seconds, run
        self._share = Share(max_bytes)

    async def read(self, request: web.BaseRequest, life: Lifetime, held: ExitStack) -> bytearray:
        """A body.

        Args:
            request: its headers are there.
            life: how long somebody waits for its answer.
            held: takes what is given back once the request is answered.

        Raises:
            RefusedError: it has no length, more than `max_bytes`, another encoding or not that which it says; or it did
                not arrive in time, or takes too much memory.
            ConnectionError: the client has gone.
        """
        length = _length(request)
        if length is not None and length > self._max_bytes:
            raise _too_large(f"The body has {length} bytes; {self._max_bytes} are allowed.")
        try:
            return await self._read(request, length, life, held)
        except ServingError as error:
            raise RefusedError(HTTP_STATUS[error.code], error.message) from None

    async def _read(self, request: web.BaseRequest, length: int | None, life: Lifetime, held: ExitStack) -> bytearray:
        packed = GzipBody(self._max_bytes) if _is_packed(request) else None
        is_large = length is not None and length > LARGE_REQUEST_BYTES
        if is_large:
            # nobody knows how much a packed one will be
            held.enter_context(await self._run(self._share.take, self._max_bytes if packed else length, life))
        if request.version >= HttpVersion11 and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0  # of the answer
        body, memory, num_read = bytearray(), JsonMemory(), 0
        try:
            while piece := await self._piece(request, is_large, life):
                num_read += len(piece)
                if num_read > self._max_bytes:
                    raise _too_large(f"The body has more than {self._max_bytes} bytes.")
                if packed is not None:
                    piece = await self._run(packed.unpack, piece)
                memory.add(piece)
                body += piece
                if not is_large and len(body) > LARGE_REQUEST_BYTES:
                    is_large = True
                    held.enter_context(await self._run(self._share.take, self._max_bytes, life))
        except TimeoutError:
            raise ServingError(
                "DEADLINE_EXCEEDED", f"{num_read} of {length or 'unknown'} bytes of the body came in time."
            ) from None
        except web.RequestPayloadError:
            raise RefusedError(http.HTTPStatus.BAD_REQUEST, "The body's chunks are not as HTTP/1.1 has them.") from None
        if packed is not None:
            packed.end()
        return body

    async def _piece(self, request: web.BaseRequest, is_large: bool, life: Lifetime) -> bytes:
        """What has come of it, or comes next; empty at its end. TimeoutError where that takes too long."""
        # what a large body has of the share others wait for
        longest = STALL_SECONDS if is_large else self._idle_seconds
        async with asyncio.timeout(min(longest, life.remaining)):
            piece = await request.content.readany()
        if not life.remaining:
            raise TimeoutError
        return piece


def _length(request: web.BaseRequest) -> int | None:
    """Bytes of a body; None where it comes in chunks."""
    encoding = request.headers.get(hdrs.TRANSFER_ENCODING)
    if encoding is not None:
        if encoding.strip().lower() != "chunked":
            raise RefusedError(
                http.HTTPStatus.BAD_REQUEST, f"Transfer-Encoding: {quoted(encoding)} is not read; chunked is."
            )
        return None
    if request.content_length is None:
        raise RefusedError(http.HTTPStatus.LENGTH_REQUIRED, "Send Content-Length, or Transfer-Encoding: chunked.")
    return request.content_length


def _is_packed(request: web.BaseRequest) -> bool:
    encodings = [encoding.strip().lower() for encoding in request.headers.getall(hdrs.CONTENT_ENCODING, ())]
    if len(encodings) > 1 or any(encoding not in ENCODINGS for encoding in encodings):
        raise RefusedError(
            http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, or by Content-Encoding: gzip."
        )
    return encodings == ["gzip"]


def _too_large(message: str) -> RefusedError:
    return RefusedError(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
