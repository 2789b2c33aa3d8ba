"""polars, or an error that names the extra. Only modules that read files import this one."""

try:
    import polars as pl
except ImportError as error:
    raise ImportError("Reading data files needs polars. Install it: pip install 'tfdlrm[data]'") from error

__all__ = ["pl"]
