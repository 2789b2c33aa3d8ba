"""The client that speaks REST: the standard library and NumPy, nothing else."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import threading
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from savedmodels.client.base import Arrays, Asked, Client, ModelMetadata, VersionStatus, check_outputs
from savedmodels.client.errors import BY_STATUS, DeadlineError, ServerError, UnavailableError
from savedmodels.wire.arrays import BASE64_KEY, to_array
from savedmodels.wire.signatures import SignatureSpec, from_json, read_signatures
from tfdlrm.checks import quoted

_GONE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class RestClient(Client):
    """A client that speaks REST. Any number of threads may use it; each request at a time has its own connection.

    Args:
        address: `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`.
        model, timeout_seconds, max_rows, retry: as in `Client`.

    Raises:
        ValueError: the address is of another form.

    Example:
        >>> with RestClient("127.0.0.1:8501", "clicks") as client:
        ...     client.predict({"dense": [[0.5, 1.0]], "item": [7]}, signature="predict")
    """

    def __init__(self, address: str, model: str = "default", **options: Any) -> None:
        super().__init__(address, model, **options)
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"address {quoted(address)} is not HOST:PORT, http://HOST:PORT or https://HOST:PORT.")
        self._host, self._port = parts.hostname, parts.port
        # http.client and not urllib: a proxy of the environment has no business between a service and its model
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._path = f"/v1/models/{quote(model, safe='')}"

    def close(self) -> None:
        """Closes connections that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _send_predict(self, spec: SignatureSpec, arrays: Arrays, asked: Asked, timeout_seconds: float) -> Arrays:
        inputs = {name: _json_value(array) for name, array in arrays.items()}
        body = json.dumps({"signature_name": spec.name, "inputs": inputs}).encode()
        answer = self._ask("POST", f"{self._who(asked)}:predict", timeout_seconds, body)
        try:
            outputs = answer["outputs"]
            if len(spec.outputs) == 1:  # it comes without its name
                outputs = {next(iter(spec.outputs)): outputs}
            arrays = {name: to_array(spec.outputs[name], value) for name, value in outputs.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ServerError(f"{self.address} answered in a form that cannot be read: {error}") from error
        return check_outputs(spec, arrays)

    def _send_status(self, asked: Asked, timeout_seconds: float) -> list[VersionStatus]:
        answer = self._ask("GET", self._who(asked), timeout_seconds)
        return [
            VersionStatus(
                version=int(entry["version"]),
                state=entry["state"],
                error_code=entry["status"]["error_code"],
                error_message=entry["status"]["error_message"],
            )
            for entry in answer.get("model_version_status", [])
        ]

    def _send_metadata(self, asked: Asked, timeout_seconds: float) -> ModelMetadata:
        answer = self._ask("GET", f"{self._who(asked)}/metadata", timeout_seconds)
        signatures, refusals = read_signatures(answer["metadata"]["signature_def"]["signature_def"], from_json)
        version = int(answer["model_spec"]["version"])
        return ModelMetadata(model=self.model, version=version, signatures=signatures, refusals=refusals)

    def _who(self, asked: Asked) -> str:
        if asked.version is not None:
            return f"{self._path}/versions/{asked.version}"
        return f"{self._path}/labels/{quote(asked.label, safe='')}" if asked.label else self._path

    def _ask(self, method: str, path: str, timeout_seconds: float, body: bytes | None = None) -> Any:
        status, data = self._exchange(method, path, timeout_seconds, body)
        try:
            answer = json.loads(data)
        except ValueError as error:
            if status == http.HTTPStatus.OK:
                raise ServerError(f"{self.address}: the answer to {method} {path} is not JSON: {error}") from error
            answer = {"error": data[:200].decode(errors="replace")}
        if status != http.HTTPStatus.OK:
            message = answer.get("error", "") if isinstance(answer, dict) else ""
            raise BY_STATUS.get(status, ServerError)(f"{self.address}: HTTP {status}: {message}")
        return answer

    def _exchange(self, method: str, path: str, timeout_seconds: float, body: bytes | None) -> tuple[int, bytes]:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._request(kept, method, path, timeout_seconds, body)
            except UnavailableError as error:
                # the server may have closed a connection that it kept for long enough; a new one tells
                if not isinstance(error.__cause__, _GONE):
                    raise
        fresh = self._connect(self._host, self._port, timeout=timeout_seconds)
        return self._request(fresh, method, path, timeout_seconds, body)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        timeout_seconds: float,
        body: bytes | None,
    ) -> tuple[int, bytes]:
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        headers = {} if body is None else {"Content-Type": "application/json"}
        is_kept = False
        try:
            # a server that refuses a body may answer and close before it has read all of it
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
            is_kept = not response.will_close
            return response.status, data
        except TimeoutError as error:
            raise DeadlineError(f"{self.address}: no answer within {timeout_seconds:.3g} s.") from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{self.address}: {str(error) or type(error).__name__}.") from error
        finally:
            if is_kept:
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()


def _json_value(array: np.ndarray) -> Any:
    return _text(array.tolist()) if array.dtype == object else array.tolist()


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(each) for each in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {BASE64_KEY: base64.b64encode(value).decode("ascii")}
