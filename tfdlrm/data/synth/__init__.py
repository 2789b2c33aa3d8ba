"""Synthetic data as files: named sizes, days that drift, raw Criteo, CSV and Parquet, multi-hot bags from one-hot ids.

Modules are imported by name (`tfdlrm.data.synth.write`, ...): `tfdlrm.data.synthetic` builds on some of them, and
others build on it.
"""
