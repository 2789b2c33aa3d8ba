"""TFX pipelines around tfdlrm, for TFX 1.21: extra `tfx`, on systems with glibc 2.39 (`make tfx-env` elsewhere).

`pipeline` says what a pipeline is made of, `run_local` runs one on this machine. The package may import `savedmodels`
and `tfdlrm`; neither imports it.
"""
