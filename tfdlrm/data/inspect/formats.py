"""Which format a path is in, and which schema its rows have where none is given."""

from __future__ import annotations

from pathlib import Path

from tfdlrm.checks import quoted
from tfdlrm.data.chunks import check_readable_file, read_first_line
from tfdlrm.data.prepared_folders import MANIFEST_FILE
from tfdlrm.data.raw_formats import AVAZU_COLUMNS, default_spec
from tfdlrm.schema import NUM_CRITEO_CATEGORICAL, NUM_CRITEO_DENSE, SCHEMA_FILE, FeatureSpec

FORMATS = ("criteo", "avazu", "csv", "parquet", "movielens", "prepared")

_PARQUET_MAGIC = b"PAR1"
_ARROW_MAGIC = b"ARROW1"


def guess_format(path: Path) -> tuple[str, str]:
    """The format and why it is taken for that.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: an empty file, or a folder of no known kind.

    Example:
        >>> guess_format(Path("rows.csv.gz"))
        ('csv', 'by its name')
    """
    if path.is_dir():
        return _guess_folder(path)
    check_readable_file(path, "a data file or a folder of prepared data")
    with path.open("rb") as stream:
        magic = stream.read(len(_ARROW_MAGIC))
    if magic.startswith(_PARQUET_MAGIC):
        return "parquet", "by its first bytes"
    if magic == _ARROW_MAGIC:
        raise ValueError(f"{path}: a single Arrow file. Give the prepared folder it belongs to, with {MANIFEST_FILE}.")
    line = read_first_line(path)
    if set(AVAZU_COLUMNS) <= {name.decode(errors="replace") for name in line.split(b",")}:
        return "avazu", "by the names in its header"
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    if suffixes and suffixes[-1] in (".csv", ".parquet"):
        return suffixes[-1][1:], "by its name"
    fields = line.split(b"\t")
    num_features = NUM_CRITEO_DENSE + NUM_CRITEO_CATEGORICAL
    # a header line has names where Criteo has integers
    numbers = fields[: len(fields) - NUM_CRITEO_CATEGORICAL]
    if len(fields) in (num_features, num_features + 1) and all(_is_integer(field) for field in numbers):
        return "criteo", f"by its first line of {len(fields)} tab-separated fields without names"
    return "csv", "no other format fits its name or first line"


def _guess_folder(path: Path) -> tuple[str, str]:
    if (path / MANIFEST_FILE).is_file():
        return "prepared", f"it holds {MANIFEST_FILE}"
    if (path / "u.data").is_file() or any(path.glob("*.inter")):
        return "movielens", "it holds MovieLens's ratings"
    raise ValueError(
        f"{path}: a folder with neither {MANIFEST_FILE} (prepared data) nor u.data or *.inter (MovieLens). "
        "Give such a folder, or a file."
    )


def _is_integer(field: bytes) -> bool:
    return not field.strip() or field.strip().removeprefix(b"-").isdigit()


def spec_of(path: Path, data_format: str) -> FeatureSpec:
    """The format's own columns, or those of `schema.yaml` beside the file.

    Raises:
        ValueError: the format has none, and no such file is there.
    """
    spec = default_spec(data_format, path)
    if spec is None:
        raise ValueError(
            f"{path}: format {quoted(data_format)} needs a schema. Give --schema FILE, or put "
            f"{SCHEMA_FILE} beside the data."
        )
    return spec
