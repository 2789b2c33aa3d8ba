"""One round of `tools/fuzz.py --of files`: a file of any format, changed, is read or refused by name."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.data import sample_rows as sample
from tests.fuzz_bytes import BORDERS, changed
from tfdlrm.config.data import DataConfig
from tfdlrm.data.columns import Columns
from tfdlrm.data.dataset import InMemoryDataset
from tfdlrm.data.inspect.prepared_folder import PreparedInput
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import open_prepared, value_limit
from tfdlrm.data.streaming import EpochRows, StreamingDataset
from tfdlrm.native.columns import Dictionary, OutOfRangeError, PartedColumn
from tfdlrm.native.text import criteo_rows
from tfdlrm.schema import FeatureSpec

NUM_ROWS = 40
LONGEST_MESSAGE = 4000
# an OSError is the system's word on a path
REFUSALS = (ValueError, OSError)


class FileRounds:
    """Files of each format, made once.

    Args:
        folder: where they and what becomes of them may be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        rows = sample.sample_rows(NUM_ROWS)
        criteo = sample.criteo_text(sample.criteo_rows(NUM_ROWS))
        self._files: dict[str, tuple[str, bytes]] = {
            "rows.csv": ("csv", sample.csv_bytes(rows)),
            "rows.csv.gz": ("csv", gzip.compress(sample.csv_bytes(rows), mtime=0)),
            "rows.txt": ("criteo", criteo),
            "rows.txt.gz": ("criteo", gzip.compress(criteo, mtime=0)),
            "rows.txt.zst": ("criteo", pa.compress(criteo, codec="zstd", asbytes=True)),
            "rows.feather": ("arrow", sample.write_arrow(folder / "rows.feather", rows).read_bytes()),
            "rows.parquet": ("parquet", sample.write_parquet(folder / "rows.parquet", rows).read_bytes()),
        }
        prepare(PrepareConfig(format="csv", schema=sample.SPEC), [sample.write_csv(folder / "rows.csv", rows)],
                folder / "prepared", bad_rows="quarantine")  # fmt: skip

    def run(self, seed: int) -> int:
        """Runs one round; returns 1 where what was changed was refused.

        Raises:
            AssertionError: what was taken is not in the bounds of the schema; or it was refused without its name, or
                at too great a length.
            Exception: any other than `REFUSALS` is a fault as well.
        """
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            kinds: tuple[Callable[[np.random.Generator, Path], int], ...] = (
                self._plain_functions,
                self._raw_file,
                self._raw_file_prepared,
                self._prepared_bytes,
                self._prepared_columns,
                self._description,
            )
            return kinds[seed % len(kinds)](rng, Path(name))

    def _raw_file(self, rng: np.random.Generator, work: Path) -> int:
        name = str(rng.choice(list(self._files)))
        data_format, data = self._files[name]
        spec = sample.SPEC if data_format != "criteo" else None
        path = work / name
        path.write_bytes(_changed_file(rng, name, data))
        config = DataConfig(format=data_format, path=str(path), schema=spec)  # type: ignore[arg-type]
        quarantined = bool(rng.integers(2))

        def read() -> None:
            splits = open_dataset(config, bad_rows="quarantine" if quarantined else "error", quarantine_dir=work)
            assert isinstance(splits.train, InMemoryDataset)
            check_columns(splits.spec, splits.train.columns)

        return refused(read, path)

    def _raw_file_prepared(self, rng: np.random.Generator, work: Path) -> int:
        name = str(rng.choice(list(self._files)))
        data_format, data = self._files[name]
        path = work / name
        path.write_bytes(_changed_file(rng, name, data))
        criteo = data_format == "criteo"
        config = PrepareConfig(
            format="criteo-kaggle" if criteo else data_format,  # type: ignore[arg-type]
            schema=None if criteo else sample.SPEC,
        )

        def read() -> None:
            prepare(config, [path], work / "out", bad_rows="quarantine")
            read_all(work / "out")

        return refused(read, path)

    def _prepared_bytes(self, rng: np.random.Generator, work: Path) -> int:
        """The Arrow file itself: its frame, its footer and its columns."""
        folder = Path(shutil.copytree(self._folder / "prepared", work / "prepared"))
        file = folder / "train" / "part-00000.arrow"
        file.write_bytes(changed(rng, file.read_bytes()))
        return refused(lambda: read_all(folder), folder)

    def _prepared_columns(self, rng: np.random.Generator, work: Path) -> int:
        """A whole Arrow file whose columns are not those of the schema."""
        folder = Path(shutil.copytree(self._folder / "prepared", work / "prepared"))
        file = folder / "train" / "part-00000.arrow"
        with pa.OSFile(str(file)) as stream:
            table = pa.ipc.open_file(stream).read_all()
        name = str(rng.choice(table.column_names))
        try:
            array = _strange(rng, table[name].chunk(0))
            table = table.set_column(table.column_names.index(name), name, array)
        except pa.ArrowException:
            pass  # pyarrow will not make it: the table stays as it is
        codec = [None, None, "lz4", "zstd"][int(rng.integers(4))]
        with (
            pa.OSFile(str(file), "wb") as sink,
            pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer,
        ):
            writer.write_table(table, max_chunksize=None if rng.integers(4) else 7)
        bags = table[name].chunk(0)
        if pa.types.is_large_list(bags.type) and rng.integers(2):
            # in the file: a writer of such offsets would read beyond its own values
            offsets = bags.offsets.to_numpy().copy()
            before = offsets.tobytes()
            offsets[int(rng.integers(len(offsets)))] = int(rng.choice(BORDERS))
            file.write_bytes(file.read_bytes().replace(before, offsets.tobytes()))
        return refused(lambda: read_all(folder), folder)

    def _description(self, rng: np.random.Generator, work: Path) -> int:
        """The texts beside the columns: manifest, schema, vocabularies, statistics."""
        folder = Path(shutil.copytree(self._folder / "prepared", work / "prepared"))
        texts = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".arrow")
        file = texts[int(rng.integers(len(texts)))]
        data = file.read_bytes()
        if file.suffix == ".json" and rng.integers(2):
            file.write_text(json.dumps(_strange_json(rng, json.loads(data))), encoding="utf-8")
        else:
            file.write_bytes(changed(rng, data))
        return refused(lambda: read_all(folder), folder)

    def _plain_functions(self, rng: np.random.Generator, work: Path) -> int:
        return _gather(rng) + _dictionary(rng) + _criteo_text(rng)


def refused(read: Callable[[], Any], path: Path) -> int:
    """0 where `read` returns, 1 where it refuses as it should."""
    try:
        read()
    except REFUSALS as error:
        text = str(error)
    else:
        return 0
    if str(path) not in text or len(text) > LONGEST_MESSAGE:
        raise AssertionError(f"{len(text)} characters, {path} to be named: {text[:500]}")
    return 1


def read_all(folder: Path) -> None:
    """As training, evaluation, prediction and inspection read: by blocks, with keys and without, and by rows."""
    dataset = open_prepared(folder).train
    assert isinstance(dataset, StreamingDataset)
    source = dataset.source
    check_columns(source.spec, source.read_blocks(range(-(-source.num_rows // source.block_rows))))
    rows = EpochRows(source, shuffle=True, seed=0, epoch=0, keys=False)
    check_columns(source.spec, rows.read(0, source.num_rows))
    assert sum(len(block.labels) for block in PreparedInput(folder).blocks()) == source.num_rows


def check_columns(spec: FeatureSpec, columns: Columns) -> None:
    """Everything is of one length, and in the bounds that the model's tables and loss rely on."""
    rows = columns.num_rows
    assert np.isin(columns.labels, (0, 1)).all()
    assert len(columns.dense) == len(columns.ids) == len(columns.labels) == rows
    at = 0
    for column in spec.categorical:
        limit = value_limit(spec, column.name)
        if column.hotness is None:
            bags = columns.ragged[column.name]
            assert [len(bags.row_splits), *bags.row_splits[[0, -1]]] == [rows + 1, 0, len(bags.values)]
            assert (np.diff(bags.row_splits) >= 0).all()
            ids = bags.values
        else:
            ids = columns.ids[:, at : at + column.hotness]
            at += column.hotness
        assert limit is None or not ids.size or 0 <= ids.min() <= ids.max() < limit, column.name


def _changed_file(rng: np.random.Generator, name: str, data: bytes) -> bytes:
    """A changed file; of a packed one, as often what is in it."""
    if name.endswith(".gz") and rng.integers(2):
        return gzip.compress(changed(rng, gzip.decompress(data)), mtime=0)
    return changed(rng, data)


def _strange(rng: np.random.Generator, array: pa.Array) -> pa.Array:
    """Another array of as many rows: of another type, or with other values."""
    rows = len(array)
    numbers = rng.choice(np.array(BORDERS, np.int64), rows)
    match int(rng.integers(5)):
        case 0:
            return pa.array(numbers)
        case 1:
            return pa.array([None if rng.integers(2) else int(n) for n in numbers], pa.int64())
        case 2:
            width = int(rng.integers(0, 4))
            values = pa.array(np.resize(numbers, rows * width))
            if not width:
                return pa.nulls(rows, pa.list_(pa.int64(), 0))
            return pa.FixedSizeListArray.from_arrays(values, width)
        case 3:
            return pa.array([struct.pack("<q", n) for n in numbers.tolist()], pa.large_binary())
        case _:
            return array.take(pa.array(rng.integers(0, rows, rows)))


def _strange_json(rng: np.random.Generator, value: Any) -> Any:
    """The document with one value put in place of another."""
    odd = (None, -1, 2**70, 1e308, "", "..", "/etc/passwd", "a\0b", "x" * 100_000, [], {}, [[]] * 3, True)
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = str(rng.choice(list(value)))
        match int(rng.integers(8)):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return {**value, str(odd[int(rng.integers(4, 9))]): value[key]}
            case _:
                return {**value, key: _strange_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = int(rng.integers(len(value)))
        return [*value[:at], _strange_json(rng, value[at]), *value[at + 1 :]]
    return odd[int(rng.integers(len(odd)))]


def _gather(rng: np.random.Generator) -> int:
    rows = rng.integers(0, 30, int(rng.integers(1, 4)))
    width, count = int(rng.integers(1, 5)), int(rng.integers(0, 60))
    dtype = (np.uint8, np.uint16, np.int32, np.int64, np.float32)[int(rng.integers(5))]
    parts = [rng.integers(0, 100, (n, width)).astype(dtype) for n in rows]
    limit = None if dtype == np.float32 or rng.integers(2) else int(rng.integers(50, 120))
    part_of = rng.integers(0, len(parts), count).astype(np.int32)
    row_of = (rng.random(count) * rows[part_of]).astype(np.int32)
    if count and rng.integers(2):
        places = (part_of, row_of)[int(rng.integers(2))]
        places[int(rng.integers(count))] = int(rng.choice([-1, 2**31 - 1, -(2**31), 30]))
    out = np.zeros((count, width), np.float32 if dtype == np.float32 or rng.integers(2) else np.int64)
    there = (part_of >= 0) & (part_of < len(parts))
    there[there] &= (row_of[there] >= 0) & (row_of[there] < rows[part_of[there]])
    try:
        PartedColumn(parts, limit).take(part_of, row_of, out)
    except IndexError:
        assert not there.all()
        return 1
    except OutOfRangeError as error:
        found = parts[part_of[error.position]][row_of[error.position]]
        assert (found >= (limit or 0)).any()
        return 1
    assert there.all()
    expected = [parts[part][row] for part, row in zip(part_of, row_of, strict=True)]
    np.testing.assert_array_equal(out, np.array(expected).reshape(count, width))
    return 0


def _dictionary(rng: np.random.Generator) -> int:
    dtype = (np.uint32, np.int64)[int(rng.integers(2))]
    dictionary, expected = Dictionary(dtype, 2**22), {}
    for _ in range(int(rng.integers(0, 4))):
        keys = rng.integers(0, int(rng.choice([3, 500, 2**32 - 1])), int(rng.integers(0, 800))).astype(dtype)
        places = [expected.setdefault(key, len(expected)) for key in keys.tolist()]
        np.testing.assert_array_equal(dictionary.add(keys), np.array(places, np.int32))
    np.testing.assert_array_equal(dictionary.values(), np.array(list(expected), dtype))
    asked = rng.integers(0, 600, 50).astype(dtype)
    found = [expected.get(key, -1) for key in asked.tolist()]
    np.testing.assert_array_equal(dictionary.find(asked), np.array(found, np.int32))
    return 0


def _criteo_text(rng: np.random.Generator) -> int:
    """What native code takes it reads as Python does."""
    num_dense, num_hex = int(rng.integers(0, 3)), int(rng.integers(1, 4))
    cells = [
        [str(rng.integers(2)), *("" if rng.random() < 0.3 else str(n) for n in rng.integers(-9, 10**6, num_dense)),
         *("" if rng.random() < 0.3 else f"{n:x}" for n in rng.integers(0, 2**32, num_hex))]
        for _ in range(int(rng.integers(1, 6)))
    ]  # fmt: skip
    text = sample.criteo_text(cells)
    if rng.integers(2):
        text = changed(rng, text)
    found = criteo_rows(text, num_dense, num_hex)
    if found is None:
        return 1
    lines = text.decode("ascii").removesuffix("\n").split("\n")
    for row, line in enumerate(lines):
        label, *rest = line.split("\t")
        numbers, tokens = rest[:num_dense], rest[num_dense:]
        assert found.labels[row] == float(label)
        for place, cell in enumerate(numbers):
            np.testing.assert_equal(found.dense[place, row], float(cell) if cell else np.nan)
        assert found.tokens[:, row].tolist() == [int(cell or "0", 16) for cell in tokens]
    assert len(found.labels) == len(lines)
    return 0
