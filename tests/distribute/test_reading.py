"""Workers read prepared data for themselves: every row once an epoch, the batches of one machine."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tests.distribute.in_process import run_script
from tfdlrm.distribute.cluster import Cluster
from tfdlrm.distribute.fit_loop import FitLoop
from tfdlrm.distribute.work import Block

pytestmark = pytest.mark.multiprocess

NUM_ROWS, BATCH_SIZE, EXAMPLE = 1003, 32, (0, 0, 32)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads(run_script("tests.distribute.reading_run"))


@pytest.mark.parametrize(("kind", "rows"), [("in order", NUM_ROWS), ("shuffled", NUM_ROWS), ("a shard", 502)])
def test_every_row_is_trained_on_once_an_epoch(results: dict[str, Any], kind: str, rows: int) -> None:
    found = results[kind]
    assert found["rows"] == found["expected"]
    assert sum(found["expected"]) == 2 * rows
    read = Counter(map(tuple, found["read"]))
    read[EXAMPLE] -= 1  # what the model is built by
    batches = [(start, min(start + BATCH_SIZE, rows)) for start in range(0, rows, BATCH_SIZE)]
    assert read == {(epoch, *batch): 1 for epoch in range(2) for batch in batches}


def test_synchronous_training_is_that_of_one_process(results: dict[str, Any]) -> None:
    """Shuffled, with ragged weighted bags, from the middle of an epoch on."""
    assert results["difference"] <= 1e-5
    assert results["scores"] <= 1e-5
    assert results["loss"][0] == pytest.approx(results["loss"][1], rel=1e-5)


def test_what_workers_cannot_read_is_sent_to_them(results: dict[str, Any]) -> None:
    assert results["nowhere"] is False
    assert results["said"].startswith("worker 0 at 127.0.0.1:")
    assert "cannot read the rows itself: " in results["said"]
    assert "no prepared data there" in results["said"]
    assert results["said"].count("The coordinator reads them and sends them.") == 1
    assert results["derived"] == [True, True]  # not all batches, or not as they are


def test_other_data_of_a_worker_are_refused(results: dict[str, Any]) -> None:
    assert results["other"].startswith("ValueError: worker 0 at 127.0.0.1:")
    assert "prepared: its manifest is another one. Give every process the same data." in results["other"]


def test_rows_that_vanish_end_the_training_by_name(results: dict[str, Any]) -> None:
    assert results["lost"].startswith("RowsUnreadableError: worker ")
    assert "manifest.json: no prepared data there" in results["lost"]
    assert "Traceback" not in results["lost"]


def test_rows_that_are_gone_before_the_training_begins(results: dict[str, Any]) -> None:
    assert results["gone"].startswith("FileNotFoundError: ")
    assert "manifest.json: no prepared data there" in results["gone"]


class _FirstIsSlow:
    """A dispatcher whose first block ends only where nothing else is under way."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.begun_before_the_first_ended = 0
        self._waiting: list[int] = []

    def submit(self, number: int, function: Any, args: tuple) -> None:
        del function, args
        self.begun.append(number)
        self._waiting.append(number)

    def wait(self) -> list[tuple[int, None]]:
        others = [number for number in self._waiting if number != self.begun[0]]
        done = (others or self._waiting)[-1]
        if done == self.begun[0] and not self.begun_before_the_first_ended:
            self.begun_before_the_first_ended = len(self.begun)
        self._waiting.remove(done)
        return [(done, None)]


@pytest.mark.parametrize(("staleness", "limit"), [(1, 8), (2, 8), (6, 4), (8, 8)])
def test_no_step_begins_long_after_an_unfinished_one(staleness: int, limit: int) -> None:
    cluster = Cluster(workers=("a:1",), parameter_servers=("b:1",))
    dispatcher = _FirstIsSlow()
    loop = FitLoop(SimpleNamespace(stop_training=False), SimpleNamespace(cluster=cluster))  # type: ignore[arg-type]
    loop.dispatcher = lambda: dispatcher  # type: ignore[method-assign, assignment, return-value]
    loop._next_block = 40
    blocks = ((loop.new_block(), Block(None, ())) for _ in range(30))
    finished = [number for number, _ in loop._each(blocks, limit, staleness)]
    assert sorted(finished) == dispatcher.begun == list(range(41, 71))
    assert dispatcher.begun_before_the_first_ended == staleness
    assert all(later > earlier for earlier, later in itertools.pairwise(dispatcher.begun))
