"""Tests, in the folders of the code they test; `reference.py` holds the NumPy oracles."""
