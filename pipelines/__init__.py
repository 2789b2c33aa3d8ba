"""TFX pipelines around tfdlrm.

Nothing is here yet: `preprocessing_fn`, `run_fn`, the pipeline and its runners are planned for this package.
It may import `savedmodels` and `tfdlrm`; neither imports it.
"""
