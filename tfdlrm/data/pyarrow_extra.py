"""pyarrow, or an error that names the extra. Only modules that read or write Arrow tables import this one."""

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError("Reading and writing tables needs pyarrow. Install it: pip install 'tfdlrm[data]'") from error

__all__ = ["pa", "pc", "pq"]
