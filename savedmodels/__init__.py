"""From a trained model to production: `export` writes a SavedModel that stock TensorFlow loads.

`serve_once` is a smoke test of an export: a fresh process with plain TensorFlow answers one request. Servers,
clients, verification and load tests are planned for this package.
"""
