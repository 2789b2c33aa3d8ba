"""The embedding engine: tables, lookups, row optimizers and checkpoints, in TensorFlow's ops and in native kernels.

Nothing here imports Keras. See `docs/engine.md` for the concepts and
`docs/decisions/0001-engine-interface.md` for why the interface is what it is.
"""
