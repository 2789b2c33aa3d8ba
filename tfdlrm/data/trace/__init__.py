"""Traces: a stream of ids, its LRU stack distances, and streams that have the same ones.

The reference's trace generator (facebookresearch/dlrm, after Hassan et al., "Synthetic Trace-Driven Simulation of Cache
Memory", AINAM 2007), number for number and fast: what a cache of embedding rows sees of a stream is its distances.
"""

from tfdlrm.data.trace.generate import generate_lru, generate_rand
from tfdlrm.data.trace.profile import TraceProfile, load_ids, lru_order, profile_trace, save_ids, stack_distances

__all__ = [
    "TraceProfile",
    "generate_lru",
    "generate_rand",
    "load_ids",
    "lru_order",
    "profile_trace",
    "save_ids",
    "stack_distances",
]
