"""Met, not met, or not to be judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from targets import Target

numbers = st.floats(0.001, 1000)


@given(value=numbers, limit=numbers)
def test_the_limit_itself_is_good_enough(value: float, limit: float) -> None:
    assert Target(name="speed", value=value, at_least=limit).is_met is (value >= limit)
    assert Target(name="time", value=value, at_most=limit).is_met is (value <= limit)


def test_what_is_printed() -> None:
    assert str(Target(name="over fbgemm", value=2.0, at_least=1.8)) == "over fbgemm >= 1.8×: 2.000×, met"
    assert str(Target(name="peak", value=9.5, at_most=9.0, unit=" GB")) == "peak <= 9 GB: 9.500 GB, NOT met"


def test_why_it_cannot_be_judged_is_said() -> None:
    target = Target(name="over fbgemm", value=2.0, at_least=1.8, unknown_because="fbgemm disturbed")
    assert target.is_met is None
    assert str(target) == "over fbgemm >= 1.8×: not judged (fbgemm disturbed)"
    assert str(Target(name="over fbgemm", value=None, at_least=1.8)).endswith("not judged (no result)")


@pytest.mark.parametrize("limits", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_one_limit_is_needed(limits: dict) -> None:
    with pytest.raises(ValueError, match="one of them"):
        Target(name="speed", value=1.0, **limits)
