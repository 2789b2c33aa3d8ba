"""What `fit` does: dense optimizers, learning-rate schedules, callbacks, checkpoints, resumption."""
