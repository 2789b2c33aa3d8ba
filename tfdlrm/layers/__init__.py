"""Keras 3 layers: the embedding collection and the dense parts of DLRM and DLRM-DCNv2."""

from tfdlrm.layers.concat_interaction import ConcatInteraction
from tfdlrm.layers.dot_interaction import DotInteraction
from tfdlrm.layers.embedding_collection import EmbeddingCollection
from tfdlrm.layers.initializers import BiasNormal, XavierNormal
from tfdlrm.layers.low_rank_cross import LowRankCross
from tfdlrm.layers.mlp import MLP
from tfdlrm.layers.projected_dot_interaction import ProjectedDotInteraction

__all__ = [
    "MLP",
    "BiasNormal",
    "ConcatInteraction",
    "DotInteraction",
    "EmbeddingCollection",
    "LowRankCross",
    "ProjectedDotInteraction",
    "XavierNormal",
]
