"""Trained tfdlrm models as SavedModels that stock TensorFlow serves.

`export` writes one, and `serve_once` shows in a process of its own that it needs nothing of tfdlrm. Not here yet:
quantized exports, warm-up requests, a local server, clients and load tests.
"""
