"""matplotlib's figure, or an error that names the extra. Figures are drawn without pyplot, so no window is opened."""

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("Plots need matplotlib. Install it: pip install 'tfdlrm[plot]'") from error

__all__ = ["Figure"]
