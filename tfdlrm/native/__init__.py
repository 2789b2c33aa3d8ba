"""Native kernels: fused lookup, update, dense and interaction ops, built on first use against the installed TensorFlow.

Everything works without them, slower, and gives the same numbers. `TFDLRM_NATIVE=off` leaves them out, `require` makes
their absence an error. See `docs/native.md`.
"""
