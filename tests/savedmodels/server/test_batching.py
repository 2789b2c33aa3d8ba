"""Requests put together to batches: the same answers, and one that is wrong fails alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from savedmodels.client import GrpcClient, InvalidRequestError, RestClient
from savedmodels.client.retries import RetryPolicy
from savedmodels.server.batching import Batcher
from savedmodels.server.config import ModelConfig
from savedmodels.server.program import Server
from tests.savedmodels.server.conftest import READY_SECONDS, options
from tests.savedmodels.server.tiny_models import predict_inputs, predict_logits

WINDOW_SECONDS = 0.2  # long enough for threads to meet, on a busy machine too


class Counted:
    """A model that doubles, and fails on 13."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, inputs):
        self.calls.append(inputs["x"].tolist())
        if 13 in inputs["x"]:
            raise ValueError("13")
        return {"y": inputs["x"] * 2}


@pytest.fixture
def model() -> Counted:
    return Counted()


@pytest.fixture
def batcher(model):
    with ThreadPoolExecutor(2) as executor:
        yield Batcher(model, executor, max_rows=4, max_wait_seconds=WINDOW_SECONDS, observe=lambda requests, rows: None)


def together(batcher, values: list[list[int]]) -> list:
    """Submits all at once; answers or errors, in order."""
    answers: list = [None] * len(values)
    barrier = threading.Barrier(len(values))

    def ask(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = (
                batcher.submit({"x": np.array(values[number])}, len(values[number])).result(10)["y"].tolist()
            )
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(values))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_requests_meet_and_get_their_own_rows_back(batcher, model):
    assert together(batcher, [[1], [2, 3], [4]]) == [[2], [4, 6], [8]]
    assert len(model.calls) == 1
    assert sorted(model.calls[0]) == [1, 2, 3, 4]


def test_a_full_batch_does_not_wait(batcher):
    start = time.monotonic()
    together(batcher, [[1, 2], [3, 4]])
    assert time.monotonic() - start < WINDOW_SECONDS


def test_a_batch_is_never_larger_than_allowed(batcher, model):
    assert together(batcher, [[number] * 3 for number in range(4)]) == [[2 * number] * 3 for number in range(4)]
    assert [len(call) for call in model.calls] == [3, 3, 3, 3]


def test_one_that_is_wrong_fails_alone(batcher, model):
    first, wrong, last = together(batcher, [[1], [13], [4]])
    assert (first, last) == ([2], [8])
    assert isinstance(wrong, ValueError)
    assert len(model.calls) == 4  # together, and then each by itself


def test_other_shapes_are_other_batches(batcher, model):
    futures = [batcher.submit({"x": np.ones([1, size])}, 1) for size in (2, 3)]
    assert [future.result(10)["y"].shape for future in futures] == [(1, 2), (1, 3)]
    assert len(model.calls) == 2


def test_outputs_that_are_not_batch_first_are_asked_for_singly():
    calls = []

    def mean(inputs):
        calls.append(len(inputs["x"]))
        return {"y": np.mean(inputs["x"], keepdims=True)}

    with ThreadPoolExecutor(2) as executor:
        batcher = Batcher(mean, executor, max_rows=4, max_wait_seconds=WINDOW_SECONDS, observe=lambda *_: None)
        assert together(batcher, [[1, 3], [5, 7]]) == [[2.0], [6.0]]
    assert sorted(calls) == [2, 2, 4]


def test_a_cancelled_request_is_left_out(model):
    started, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: (started.set(), go_on.wait()))
        started.wait()
        batcher = Batcher(model, executor, max_rows=1, max_wait_seconds=0, observe=lambda *_: None)
        cancelled, kept = (batcher.submit({"x": np.array([number])}, 1) for number in (1, 2))
        assert cancelled.cancel()
        go_on.set()
        assert kept.result(10)["y"].tolist() == [4]
    assert model.calls == [[2]]


def test_a_server_that_batches_answers_the_same(versions):
    configs = [ModelConfig(name="tiny", base_path=versions)]
    batched = options(max_batch_rows=64, max_batch_wait_microseconds=int(WINDOW_SECONDS * 1e6), num_threads=2)
    with Server(configs, batched) as server:
        assert server.wait_until_ready(READY_SECONDS)
        settings = {"model": "tiny", "retry": RetryPolicy(num_retries=0)}
        with (
            GrpcClient(f"127.0.0.1:{server.grpc_port}", **settings) as grpc_client,
            RestClient(f"127.0.0.1:{server.rest_port}", **settings) as rest_client,
            ThreadPoolExecutor(8) as executor,
        ):
            sizes = [1, 2, 3, 4, 5, 6, 7]
            futures = [
                executor.submit((grpc_client, rest_client)[size % 2].predict, predict_inputs(size), signature="predict")
                for size in sizes
            ]
            wrong = executor.submit(grpc_client.predict, {**predict_inputs(1), "user": [100]}, signature="predict")
            for size, future in zip(sizes, futures, strict=True):
                logit = future.result()["logit"][:, 0]
                np.testing.assert_allclose(logit, predict_logits(predict_inputs(size)), atol=1e-5)
            with pytest.raises(InvalidRequestError, match="an id is not below 100"):
                wrong.result()
            page = server._metrics.page().decode()
    sums = [line.split(" ")[1] for line in page.splitlines() if line.startswith("tfdlrm_serving_batch_requests_count{")]
    assert float(sums[0]) < len(sizes) + 1  # some went together
