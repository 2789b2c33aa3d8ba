"""Synchronous training: every step is one update, with the gradient of the whole batch, as on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdlrm.distribute.work import Work
from tfdlrm.distribute.worker_step import WorkerStep

if TYPE_CHECKING:
    from tfdlrm.distribute.fit_loop import FitLoop


def synchronous_steps(loop: FitLoop, work: Work, step: WorkerStep) -> Iterator[list[Any]]:
    """The packed sums of every step: its parts are computed by all workers, then the servers update once."""
    num_parts = len(loop.strategy.cluster.workers)
    dispatcher = loop.dispatcher()
    for blocks in work.sync_steps(step, loop.new_block, num_parts):
        for part, (function, args) in enumerate(blocks):
            dispatcher.submit(part, function, args)
        found: dict[int, Any] = {}
        while dispatcher.num_outstanding:
            found.update(dispatcher.wait())
        _apply(step, len(blocks))
        yield [found[part] for part in sorted(found)]
        if loop.stopping():
            return


def _apply(step: WorkerStep, num_parts: int) -> None:
    key = (f"apply {num_parts}", "")
    if key not in step.functions:
        step.functions[key] = tf.function(lambda: step.apply_parts(num_parts), autograph=False)
    step.functions[key]()
