"""Trying again: only what may succeed the next time, ever more slowly, and never past the deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from savedmodels.client.errors import DeadlineError, UnavailableError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When to try again, after the server was not available.

    The wait before retry n is drawn from [0, min(`max_wait_seconds`, `first_wait_seconds` * 2^n)], so that clients of
    one server do not come back all at once.

    Args:
        num_retries: 0 for none.
        first_wait_seconds, max_wait_seconds: bounds of the waits.
    """

    num_retries: int = 5
    first_wait_seconds: float = 0.1
    max_wait_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.num_retries < 0 or self.first_wait_seconds < 0 or self.max_wait_seconds < 0:
            raise ValueError(f"{self}: retries and waits are 0 or more.")

    def call(self, ask: Callable[[float], Result], deadline: float) -> Result:
        """Calls until there is an answer.

        Args:
            ask: given the seconds left.
            deadline: of `time.monotonic()`.

        Raises:
            UnavailableError: the last one, where retries or time ran out.
            DeadlineError: the time was over before the first try.
        """
        retry = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError("The time given was over before the request was sent.")
            try:
                return ask(left)
            except UnavailableError:
                limit = min(self.max_wait_seconds, self.first_wait_seconds * 2.0**retry)
                wait = random.uniform(0, limit)
                if retry == self.num_retries or time.monotonic() + wait >= deadline:
                    raise
                time.sleep(wait)
                retry += 1
