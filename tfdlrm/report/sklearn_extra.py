"""scikit-learn's metrics, or an error that names the extra."""

try:
    from sklearn import metrics
except ImportError as error:
    raise ImportError("Reports need scikit-learn. Install it: pip install 'tfdlrm[report]'") from error

__all__ = ["metrics"]
