"""Search for a better config: sampled, pruned by validation, settled by several seeds."""
