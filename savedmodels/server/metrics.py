"""Prometheus metrics of a server; each server has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from savedmodels.server.errors import from_exception

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)  # seconds
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


@dataclass
class Request:
    """What is known of a request so far; labels hold only names of the server's own, never a client's text."""

    model: str = ""
    signature: str = ""


class Metrics:
    """Counts requests."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("interface", "method", "model", "signature")
        self._requests = Counter(
            "tfdlrm_serving_requests", "Requests answered", (*labels, "status"), registry=self._registry
        )
        self._latency = Histogram(
            "tfdlrm_serving_request_seconds",
            "Time from a request read to its answer made",
            labels,
            registry=self._registry,
            buckets=LATENCY_BUCKETS,
        )
        self._in_flight = Gauge("tfdlrm_serving_requests_in_flight", "Requests being answered", registry=self._registry)
        self._batch_rows = Histogram(
            "tfdlrm_serving_batch_rows",
            "Rows of a call of a model",
            ("model", "signature"),
            registry=self._registry,
            buckets=ROW_BUCKETS,
        )
        self._batch_requests = Histogram(
            "tfdlrm_serving_batch_requests",
            "Requests put together to a call of a model",
            ("model", "signature"),
            registry=self._registry,
            buckets=ROW_BUCKETS[:9],
        )
        self._versions = Gauge(
            "tfdlrm_serving_version_state",
            "1 for the state that a version is in",
            ("model", "version", "state"),
            registry=self._registry,
        )
        self._version_bytes = Gauge(
            "tfdlrm_serving_version_bytes", "Variables in memory", ("model", "version"), registry=self._registry
        )
        self._loads = Counter(
            "tfdlrm_serving_loads", "Versions loaded, or failed to", ("model", "status"), registry=self._registry
        )

    @contextmanager
    def request(self, interface: str, method: str) -> Iterator[Request]:
        """Counts a request, whatever becomes of it; an error goes on as a `ServingError`."""
        seen = Request()
        status = "OK"
        start = time.perf_counter()
        self._in_flight.inc()
        try:
            yield seen
        except Exception as error:
            status = from_exception(error).code
            raise
        finally:
            self._in_flight.dec()
            labels = (interface, method, seen.model, seen.signature)
            self._requests.labels(*labels, status).inc()
            self._latency.labels(*labels).observe(time.perf_counter() - start)

    def batch(self, model: str, signature: str, num_requests: int, num_rows: int) -> None:
        """Counts a call of a model."""
        self._batch_requests.labels(model, signature).observe(num_requests)
        self._batch_rows.labels(model, signature).observe(num_rows)

    def version(self, model: str, version: int, state: str, num_bytes: int) -> None:
        """Notes a version's state; one that has ended is not listed."""
        for other in ("START", "LOADING", "AVAILABLE", "UNLOADING"):
            self._remove(self._versions, model, str(version), other)
        self._remove(self._version_bytes, model, str(version))
        if state != "END":
            self._versions.labels(model, str(version), state).set(1)
            self._version_bytes.labels(model, str(version)).set(num_bytes)

    def load(self, model: str, *, succeeded: bool) -> None:
        """Counts a load."""
        self._loads.labels(model, "OK" if succeeded else "FAILED").inc()

    @staticmethod
    def _remove(metric: Gauge, *labels: str) -> None:
        with suppress(KeyError):  # it was not there
            metric.remove(*labels)

    def page(self) -> bytes:
        """All metrics in Prometheus's text form."""
        return generate_latest(self._registry)
