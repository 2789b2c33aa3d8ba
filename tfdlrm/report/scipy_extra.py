"""SciPy's statistics, or an error that names the extra: scikit-learn brings it along."""

try:
    from scipy import stats
except ImportError as error:
    raise ImportError("Reports need SciPy. Install it: pip install 'tfdlrm[report]'") from error

__all__ = ["stats"]
