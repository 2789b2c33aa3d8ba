"""pyarrow, or an error that names the extra. Only modules that read or write Arrow tables import this one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tfdlrm.checks import shortened

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError("Reading and writing tables needs pyarrow. Install it: pip install 'tfdlrm[data]'") from error

__all__ = ["damaged_file", "pa", "pc", "pq"]


@contextlib.contextmanager
def damaged_file(path: Path, expected: str, fix: str, *more: type[BaseException]) -> Iterator[None]:
    """What pyarrow says of a damaged file, as a ValueError that names it.

    Args:
        path: the file.
        expected: what it is not.
        fix: a sentence.
        more: errors of whoever reads the columns after pyarrow.
    """
    try:
        yield
    except FileNotFoundError:  # no damage
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, *more) as error:
        raise ValueError(f"{path}: not {expected} ({shortened(str(error))}). {fix}") from error
