"""A server of SavedModels for development and tests: TensorFlow Serving's gRPC and REST interfaces, in Python.

It is not TensorFlow Serving. It runs TensorFlow's Python package in one process, on CPU threads, without batching on
accelerators, remote file systems, or TensorFlow Serving's throughput. For production give the same folders to
TensorFlow Serving; clients need not change (`savedmodels/deploy`).
"""
