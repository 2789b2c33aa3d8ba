"""Bodies that are compressed by gzip, unpacked piece by piece and never beyond a limit."""

from __future__ import annotations

import zlib

from savedmodels.server.errors import ServingError

GZIP_BITS = 16 + zlib.MAX_WBITS


class BodyTooLargeError(ServingError):
    """More bytes than a request may have."""

    def __init__(self, message: str) -> None:
        super().__init__("RESOURCE_EXHAUSTED", message)


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
            BodyTooLargeError: it is more than the limit, with what came before.
            ServingError: INVALID_ARGUMENT: it is no gzip.
        """
        unpacked = b""
        while piece:
            if self._stream.eof:  # another member
                self._stream = zlib.decompressobj(GZIP_BITS)
            try:
                # one byte more than is allowed tells that there are more
                unpacked += self._stream.decompress(piece, self._max_bytes - self._num_bytes - len(unpacked) + 1)
            except zlib.error as error:
                raise ServingError("INVALID_ARGUMENT", f"The body is not gzip: {error}.") from None
            if self._num_bytes + len(unpacked) > self._max_bytes:
                raise BodyTooLargeError(f"The body has more than {self._max_bytes} bytes once it is unpacked.")
            piece = self._stream.unused_data
        self._num_bytes += len(unpacked)
        return unpacked

    def end(self) -> None:
        """After the last piece.

        Raises:
            ServingError: INVALID_ARGUMENT: the stream is not at its end.
        """
        if not self._stream.eof:
            raise ServingError("INVALID_ARGUMENT", "The body's gzip stream is cut off.")
