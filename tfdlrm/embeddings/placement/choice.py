"""Which placement a strategy asks for."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfdlrm.embeddings.placement.base import Placement
from tfdlrm.embeddings.placement.native import local_placement
from tfdlrm.embeddings.planner import ShardingPlan


def default_placement() -> Callable[[ShardingPlan, int], Placement]:
    """Makes the placement of the current strategy: of its own (`table_placement`), or everything in this process."""
    own: Callable[[ShardingPlan, int], Placement] | None = getattr(
        tf.distribute.get_strategy(), "table_placement", None
    )
    return own or local_placement
