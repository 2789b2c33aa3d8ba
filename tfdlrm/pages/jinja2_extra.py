"""jinja2, or an error that names the extra."""

try:
    import jinja2
except ImportError as error:
    raise ImportError("Pages need jinja2. Install it: pip install 'tfdlrm[plot]'") from error

__all__ = ["jinja2"]
