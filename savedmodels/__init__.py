"""From a trained model to production: `export` writes a SavedModel that stock TensorFlow loads.

`verify` checks an export, `serve_once` is a smoke test of one, `export_delta` and `apply_delta` carry what changed;
`server` answers requests over gRPC and REST, `client` asks them.
"""
