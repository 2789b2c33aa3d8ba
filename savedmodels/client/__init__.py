"""Clients of TensorFlow Serving and of `tfdlrm serve`: one protocol, two ways to speak it.

`GrpcClient` and `RestClient` have the same methods, errors, retries and results. Neither imports TensorFlow.
"""

from savedmodels.client.base import Client, ModelMetadata, VersionStatus
from savedmodels.client.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from savedmodels.client.grpc_client import GrpcClient
from savedmodels.client.rest_client import RestClient

__all__ = [
    "Client",
    "ClientError",
    "DeadlineError",
    "GrpcClient",
    "InvalidRequestError",
    "ModelMetadata",
    "NotFoundError",
    "RestClient",
    "ServerError",
    "UnavailableError",
    "VersionStatus",
]
