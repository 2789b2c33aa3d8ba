"""What is in a dataset before a model is trained on it: `inspect_data` and its `DataReport`.

Needs polars (`pip install 'tfdlrm[data]'`); a prepared folder needs pyarrow, of the same extra.
"""

from tfdlrm.data.inspect.report import DataReport
from tfdlrm.data.inspect.run import inspect_data

__all__ = ["DataReport", "inspect_data"]
