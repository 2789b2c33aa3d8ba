"""Requests put together to batches: the same answers, and one that is wrong fails alone."""

from __future__ import annotations

import threading
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

FULL_OR_NEVER = 3600.0  # a batch that such a test makes is full, or the test hangs
MAX_ROWS = 4


class Counted:
    """A model that doubles, and fails on 13."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, inputs, cancellation):
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
        yield Batcher(model, executor, max_rows=MAX_ROWS, max_wait_seconds=FULL_OR_NEVER, observe=lambda *_: None)


@pytest.fixture
def hasty(model):
    """Waits for nobody, or hardly."""
    with ThreadPoolExecutor(2) as executor:
        yield Batcher(model, executor, max_rows=MAX_ROWS, max_wait_seconds=0.01, observe=lambda *_: None)


def together(batcher, values: list[list[int]]) -> list:
    """Submits all at once; answers or errors, in order."""
    answers: list = [None] * len(values)
    barrier = threading.Barrier(len(values))

    def ask(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = (
                batcher.submit({"x": np.array(values[number])}, len(values[number]))[0].result()["y"].tolist()
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


def test_a_batch_that_is_not_full_waits_no_longer_than_allowed(hasty):
    assert together(hasty, [[1]]) == [[2]]


def test_a_batch_is_never_larger_than_allowed(hasty, model):
    assert together(hasty, [[number] * 3 for number in range(4)]) == [[2 * number] * 3 for number in range(4)]
    assert [len(call) for call in model.calls] == [3, 3, 3, 3]


def test_one_that_is_wrong_fails_alone(batcher, model):
    first, wrong, last = together(batcher, [[1], [13], [4, 5]])
    assert (first, last) == ([2], [8, 10])
    assert isinstance(wrong, ValueError)
    assert len(model.calls) == 4  # together, and then each by itself


def test_other_shapes_are_other_batches(hasty, model):
    futures = [hasty.submit({"x": np.ones([1, size])}, 1) for size in (2, 3)]
    assert [future.result()["y"].shape for future, _ in futures] == [(1, 2), (1, 3)]
    assert len(model.calls) == 2


def test_outputs_that_are_not_batch_first_are_asked_for_singly():
    calls = []

    def mean(inputs, cancellation):
        calls.append(len(inputs["x"]))
        return {"y": np.mean(inputs["x"], keepdims=True)}

    with ThreadPoolExecutor(2) as executor:
        batcher = Batcher(mean, executor, max_rows=MAX_ROWS, max_wait_seconds=FULL_OR_NEVER, observe=lambda *_: None)
        assert together(batcher, [[1, 3], [5, 7]]) == [[2.0], [6.0]]
    assert sorted(calls) == [2, 2, 4]


def test_a_cancelled_request_is_left_out(model):
    started, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: (started.set(), go_on.wait()))
        started.wait()
        batcher = Batcher(model, executor, max_rows=1, max_wait_seconds=0, observe=lambda *_: None)
        (cancelled, abandon), (kept, _) = (batcher.submit({"x": np.array([number])}, 1) for number in (1, 2))
        abandon()
        assert cancelled.cancelled()
        go_on.set()
        assert kept.result()["y"].tolist() == [4]
    assert model.calls == [[2]]


def test_a_call_stops_once_nobody_of_its_batch_waits():
    started, stopped = threading.Event(), threading.Event()

    def run(inputs, cancellation):
        cancellation.start = stopped.set
        started.set()
        assert stopped.wait(60)
        raise ValueError("stopped")

    with ThreadPoolExecutor(1) as executor, ThreadPoolExecutor(2) as clients:
        batcher = Batcher(run, executor, max_rows=2, max_wait_seconds=FULL_OR_NEVER, observe=lambda *_: None)
        asked = list(clients.map(lambda number: batcher.submit({"x": np.array([number])}, 1), (1, 2)))
        assert started.wait(60)
        asked[0][1]()
        assert not stopped.is_set()
        asked[1][1]()
        assert stopped.wait(60)


def test_a_server_that_batches_answers_the_same(versions):
    sizes = [1, 2, 3, 4, 5, 6, 7]
    batched = options(max_batch_rows=sum(sizes), max_batch_wait_microseconds=int(FULL_OR_NEVER * 1e6), num_threads=2)
    with Server([ModelConfig(name="tiny", base_path=versions)], batched) as server:
        assert server.wait_until_ready(READY_SECONDS)
        settings = {"model": "tiny", "retry": RetryPolicy(num_retries=0)}
        with (
            GrpcClient(f"127.0.0.1:{server.grpc_port}", **settings) as grpc_client,
            RestClient(f"127.0.0.1:{server.rest_port}", **settings) as rest_client,
            ThreadPoolExecutor(8) as executor,
        ):

            def ask(*inputs: dict) -> list:
                clients = (grpc_client, rest_client) * len(inputs)
                return [
                    executor.submit(client.predict, each, signature="predict")
                    for client, each in zip(clients, inputs, strict=False)
                ]

            for size, future in zip(sizes, ask(*map(predict_inputs, sizes)), strict=True):
                logit = future.result()["logit"][:, 0]
                np.testing.assert_allclose(logit, predict_logits(predict_inputs(size)), atol=1e-5)
            page = server._metrics.page().decode()
            counts = [s for s in page.splitlines() if s.startswith("tfdlrm_serving_batch_requests_count{")]
            assert [count.split(" ")[1] for count in counts] == ["1.0"]  # all went together
            good, wrong = ask(predict_inputs(sum(sizes) - 1), {**predict_inputs(1), "user": [100]})
            assert len(good.result()["logit"]) == sum(sizes) - 1
            with pytest.raises(InvalidRequestError, match="an id is not below 100"):
                wrong.result()
