"""Recorded requests: inputs of an export's signatures and what the live model answered, for `verify` to compare.

`assets.extra/tfdlrm/requests.npz` is written and read without pickle. A tensor is one entry of it,

    <signature>/<number>/inputs/<name>          or   <signature>/<number>/outputs/<name>

and a tensor of strings three, because NumPy's fixed-width strings lose zero bytes at their end:

    .../<name>.bytes  uint8, all strings one after another
    .../<name>.offsets  int64 [strings + 1]
    .../<name>.shape  int64 [dimensions]

Imports nothing of this repository: the fresh process of `verify`, which cannot, loads this file by its path.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REQUESTS_FILE = Path("assets.extra", "tfdlrm", "requests.npz")
FORMAT = 1
_FORMAT_ENTRY = "format"
_STRING_PARTS = ("bytes", "offsets", "shape")
_NUMERIC_KINDS = "fiub"  # floats, integers, unsigned integers, booleans


class RecordedRequest(NamedTuple):
    """Inputs and outputs of one call of a signature.

    Attributes:
        inputs: name -> array as the signature takes it; strings as an object array of bytes.
        outputs: name -> array, the live model's answer.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


Requests = Mapping[str, Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]]


def record_requests(version_folder: str | os.PathLike[str], requests: Requests) -> Path:
    """Writes the recorded requests of an export.

    Args:
        version_folder: the export, `saved_model.pb` in it or not yet.
        requests: signature -> (inputs, outputs) pairs, each name -> array; strings as bytes in any NumPy form.

    Returns:
        The file.

    Raises:
        ValueError: a name holds `/`, or an array's dtype cannot be recorded.

    Example:
        >>> record_requests(folder, {"predict": [({"user": ids}, {"probability": p, "logit": z})]})
    """
    path = Path(version_folder) / REQUESTS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_requests(path, requests)
    return path


def read_requests(version_folder: str | os.PathLike[str]) -> dict[str, list[RecordedRequest]]:
    """Reads the recorded requests of an export, in the order in which they were recorded.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file cannot be read; says what is wrong with which entry.

    Example:
        >>> read_requests(folder)["predict"][0].outputs["probability"].shape
        (4, 1)
    """
    path = Path(version_folder) / REQUESTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: there are no recorded requests. Export the model again.")
    return load_requests(path)


def write_requests(path: Path, requests: Requests) -> None:
    """As `record_requests`, to any file, which appears whole or not at all."""
    entries: dict[str, np.ndarray] = {_FORMAT_ENTRY: np.asarray(FORMAT, np.int64)}
    for signature, pairs in requests.items():
        for number, (inputs, outputs) in enumerate(pairs):
            for kind, arrays in (("inputs", inputs), ("outputs", outputs)):
                for name, array in arrays.items():
                    if "/" in signature or "/" in name or "." in name:
                        raise ValueError(
                            f"signature {signature!r}, {kind} {name!r}: names with '/' or '.' cannot be recorded. "
                            "Rename it."
                        )
                    entries.update(_entries(f"{signature}/{number}/{kind}/{name}", array))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            np.savez(file, **entries)  # type: ignore[arg-type]  # none of objects, so that nothing is pickled
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_requests(path: Path) -> dict[str, list[RecordedRequest]]:
    """As `read_requests`, from any file."""
    try:
        # opened here: NumPy leaves a file open that it cannot read
        with open(path, "rb") as file:
            _refuse_packed(file, path.stat().st_size)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
    except Exception as error:  # whatever NumPy and zipfile raise for files that are cut, changed or encrypted
        raise ValueError(f"{path} cannot be read: {str(error)[:200]}. Export the model again.") from error
    try:
        return _requests(entries)
    except ValueError as error:
        raise ValueError(f"{path}: {error} Export the model again.") from error


def _refuse_packed(file: Any, num_bytes: int) -> None:
    """Refuses what would unpack to more than the file holds: nothing of ours is packed."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    packed = [info.filename for info in infos if info.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"entry {packed[0][:200]!r} is packed, which none of ours is")
    if sum(info.file_size for info in infos) > num_bytes:
        raise ValueError("its entries claim more bytes than the file has")


def strings(array: Any) -> np.ndarray:
    """An array of strings as an object array of bytes, the form in which requests hold them.

    Raises:
        ValueError: an element is neither text nor bytes.
    """
    array = np.asarray(array)
    result = np.empty(array.shape, object)
    for index, element in np.ndenumerate(array):
        if not isinstance(element, (bytes, str)):
            raise ValueError(f"element {index} is a {type(element).__name__}; strings are expected.")
        result[index] = element.encode() if isinstance(element, str) else bytes(element)
    return result


def _entries(entry: str, array: Any) -> dict[str, np.ndarray]:
    array = np.asarray(array)
    # bfloat16 and its like are of a kind that NumPy's files do not know
    if array.dtype.kind in _NUMERIC_KINDS:
        return {entry: array}
    if array.dtype.kind not in "OSU":
        raise ValueError(f"{entry}: dtype {array.dtype} cannot be recorded. Give numbers or strings.")
    try:
        elements: list[bytes] = list(strings(array).flat)
    except ValueError as error:
        raise ValueError(f"{entry}: {error}") from error
    offsets = np.cumsum([0, *map(len, elements)], dtype=np.int64)
    parts: tuple[np.ndarray, ...] = (
        np.frombuffer(b"".join(elements), np.uint8),
        offsets,
        np.asarray(array.shape, np.int64),
    )
    return {f"{entry}.{part}": parts[i] for i, part in enumerate(_STRING_PARTS)}


def _requests(entries: dict[str, np.ndarray]) -> dict[str, list[RecordedRequest]]:
    given = entries.pop(_FORMAT_ENTRY, None)
    if given is None or given.shape != () or int(given) != FORMAT:
        raise ValueError(f"format {given} is not {FORMAT}, which this version reads.")
    found: dict[str, list[RecordedRequest]] = {}
    for entry, array in _joined(entries):
        parts = entry.split("/")
        if len(parts) != 4 or not parts[1].isdecimal() or parts[2] not in ("inputs", "outputs"):
            raise ValueError(f"entry {entry!r} is none of <signature>/<number>/inputs|outputs/<name>.")
        signature, number, kind, name = parts
        requests = found.setdefault(signature, [])
        if int(number) == len(requests):
            requests.append(RecordedRequest({}, {}))
        if int(number) != len(requests) - 1:
            raise ValueError(f"entry {entry!r} comes out of order.")
        getattr(requests[-1], kind)[name] = array
    return found


def _joined(entries: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Entries with the parts of each tensor of strings put together."""
    for entry, array in entries.items():
        base, dot, part = entry.rpartition(".")
        if not dot:
            yield entry, array
        elif part not in _STRING_PARTS:
            raise ValueError(f"entry {entry!r} is unknown.")
        elif part == _STRING_PARTS[0]:
            missing = [each for each in _STRING_PARTS if f"{base}.{each}" not in entries]
            if missing:
                raise ValueError(f"entry {base!r} lacks its {' and '.join(missing)}.")
            yield base, _string_array(base, *(entries[f"{base}.{each}"] for each in _STRING_PARTS))


def _string_array(entry: str, data: np.ndarray, offsets: np.ndarray, shape: np.ndarray) -> np.ndarray:
    is_typed = (data.dtype, offsets.dtype, shape.dtype) == (np.uint8, np.int64, np.int64)
    if not is_typed or any(part.ndim != 1 for part in (data, offsets, shape)) or (shape < 0).any():
        raise ValueError(f"entry {entry!r} is no tensor of strings.")
    num_strings = len(offsets) - 1
    is_partition = num_strings >= 0 and offsets[0] == 0 and offsets[-1] == len(data) and (np.diff(offsets) >= 0).all()
    if not is_partition or int(np.prod(shape, dtype=object)) != num_strings:
        raise ValueError(f"entry {entry!r}: its offsets do not fit its {len(data)} bytes and shape {shape.tolist()}.")
    text = data.tobytes()
    result = np.empty(num_strings, object)
    for i in range(num_strings):
        result[i] = text[offsets[i] : offsets[i + 1]]
    return result.reshape(shape.tolist())
