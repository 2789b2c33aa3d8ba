"""Models to export, built once."""

from __future__ import annotations

import pytest

from tests.savedmodels.small_model import build
from tfdlrm.config import QuotientRemainderConfig
from tfdlrm.models.dlrm import DLRM


@pytest.fixture(scope="session")
def model() -> DLRM:
    return build()


@pytest.fixture(scope="session")
def rich_model() -> DLRM:
    """With the layers and options that the plain one does without."""
    return build(
        quotient_remainder=QuotientRemainderConfig(threshold=200),
        normalization="layer",
        dropout=0.5,
        combiner="mean",
        interact_itself=True,
        interaction_padding=8,
    )
