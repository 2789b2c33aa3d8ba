"""NumPy's files, which anyone may have written: no array is made that is larger than what holds it."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.checks import quoted, shortened

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(path: str | os.PathLike[str], *, mapped: bool = False) -> np.ndarray:
    """The array of a `.npy` file.

    Args:
        path: of the file.
        mapped: into memory, read only.

    Raises:
        FileNotFoundError, PermissionError: as of `open`.
        ValueError: its bytes are no array, or one of objects; names the file.
    """
    file = Path(path)
    with file.open("rb") as stream:
        try:
            size = _check_header(stream, file.stat().st_size)
            stream.seek(0)
            if mapped and size:
                return np.load(file, allow_pickle=False, mmap_mode="r")
            return np.lib.format.read_array(stream, allow_pickle=False)
        except Exception as error:  # whatever NumPy raises for bytes that are no array, MemoryError too
            raise ValueError(f"{file} cannot be read: {shortened(str(error))}.") from error


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, by name; nothing of ours is packed.

    Raises:
        FileNotFoundError, PermissionError: as of `open`.
        ValueError: it is cut or changed, an entry is packed, twice or none of an array; names file and entry.
    """
    file = Path(path)
    with file.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return _read_entries(archive, file.stat().st_size)
        except Exception as error:  # whatever zipfile and NumPy raise for files that are cut, changed or encrypted
            raise ValueError(f"{file} cannot be read: {shortened(str(error))}.") from error


def _read_entries(archive: zipfile.ZipFile, num_bytes: int) -> dict[str, np.ndarray]:
    infos = archive.infolist()
    packed = [info.filename for info in infos if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"entry {quoted(packed[0])} is packed, which none of ours is")
    if sum(info.file_size for info in infos) > num_bytes:
        raise ValueError("its entries claim more bytes than the file has")
    arrays: dict[str, np.ndarray] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in arrays:
            raise ValueError(f"entry {quoted(name)} is there twice")
        with archive.open(info) as stream:
            try:
                _check_header(stream, info.file_size)
            except ValueError as error:
                raise ValueError(f"entry {quoted(name)}: {error}") from error
        with archive.open(info) as stream:
            arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _check_header(stream: Any, num_bytes: int) -> int:
    """Compares what the header says with the bytes that there are; how many values there are."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of NumPy's format")
    try:
        shape, _, dtype = _HEADERS[version](stream)
    except Exception as error:  # it is parsed as Python's text: TokenError, TypeError, RecursionError and others
        raise ValueError("its header is none that NumPy writes") from error
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    # in whole numbers of any size: NumPy's own product overflows
    if (
        not all(0 <= size < 2**63 for size in shape)
        or not dtype.itemsize
        or math.prod(shape) * dtype.itemsize != num_bytes - stream.tell()
    ):
        raise ValueError(f"its bytes are no array of shape {quoted(shape)} and dtype {dtype}")
    return math.prod(shape)
