"""What a client raises, whichever way it spoke to the server."""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """A request that was not answered. All others are of this class."""


class InvalidRequestError(ClientError):
    """The request is wrong: it will be wrong again. The message names the input."""


class NotFoundError(ClientError):
    """No such model, version or label."""


class DeadlineError(ClientError):
    """No answer within the time given."""


class UnavailableError(ClientError):
    """No server there, or one that is starting, stopping or too busy; retries did not help."""


class ServerError(ClientError):
    """The server or the model failed."""


BY_CODE: Mapping[str, type[ClientError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "FAILED_PRECONDITION": InvalidRequestError,
    "OUT_OF_RANGE": InvalidRequestError,
    "UNIMPLEMENTED": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "UNAVAILABLE": UnavailableError,
}
BY_STATUS: Mapping[int, type[ClientError]] = {
    400: InvalidRequestError,
    405: InvalidRequestError,
    411: InvalidRequestError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    501: InvalidRequestError,
    404: NotFoundError,
    408: DeadlineError,
    504: DeadlineError,
    503: UnavailableError,
}
