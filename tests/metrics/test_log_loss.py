"""LogLoss where probabilities are 0 and 1."""

from __future__ import annotations

import numpy as np

from tfdlrm.metrics import LogLoss


def test_an_infinite_logit_costs_nothing_or_everything() -> None:
    for labels, logits, weights, expected in (
        ([1.0, 0.0], [np.inf, -np.inf], None, 0.0),
        ([1.0, 0.0], [-np.inf, -np.inf], None, np.inf),
        ([0.0], [np.inf], None, np.inf),
        ([0.0, 1.0], [np.inf, 0.0], [0.0, 1.0], np.log(2)),
    ):
        metric = LogLoss()
        metric.update_state(labels, logits, weights)
        np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)
