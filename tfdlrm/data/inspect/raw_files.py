"""RawInput: raw files through the same readers and checks as training, but with empty cells still visible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.cells import parse_numbers
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.inspect.blocks import InspectBlock, days_of, find_day_column
from tfdlrm.data.inspect.label_rates import count_text_rows, count_typed_rows, section_ends, sections_of
from tfdlrm.data.inspect.report import BadRowCount
from tfdlrm.data.parse import RawRows, RowParser
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.quarantine import BadRow, Quarantine
from tfdlrm.data.raw_formats import TYPED_FORMATS, open_source
from tfdlrm.data.sources import RowSource, parse_block
from tfdlrm.data.typed import frame_source
from tfdlrm.schema import DenseColumn, FeatureSpec

# Reasons told apart; damaged files invent many ("7 fields", "8 fields").
_MAX_REASONS = 100
_OTHER_REASON = ("", "other reasons")


class CountingQuarantine(Quarantine):
    """Counts bad rows by column and reason, and writes none of them."""

    def __init__(self) -> None:
        super().__init__("quarantine")
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], BadRow] = {}

    def add_all(self, rows: Iterable[BadRow]) -> None:
        """See `Quarantine`."""
        rows = list(rows)
        super().add_all(rows)
        for row in rows:
            key = (row.column, row.reason)
            if key not in self._reasons and len(self._reasons) >= _MAX_REASONS:
                key = _OTHER_REASON
            self._reasons[key] += 1
            self._first.setdefault(key, row)

    def counts(self) -> tuple[BadRowCount, ...]:
        """Most frequent first."""
        return tuple(
            BadRowCount(column=key[0], reason=key[1], rows=rows, example=_example(self._first[key]))
            for key, rows in self._reasons.most_common()
        )


def name_of(rows: Path | pl.DataFrame) -> str:
    """What a report calls them."""
    return FRAME_NAME if isinstance(rows, pl.DataFrame) else str(rows)


def _example(row: BadRow) -> str:
    found = f", found {quoted(row.value[:40])}" if row.column else ""
    return f"{row.file}, line {row.line}{found}. {row.fix}"


class RawInput:
    """A raw file, and maybe a second one to compare it with. See `InspectInput`.

    Without a second file, the last group of rows is the part `test` and those before it are `train`; with seven
    groups that is the reference's split of the Criteo Kaggle file.

    Args:
        path: the file; the folder, for MovieLens; or a frame.
        data_format: one of raw rows, or `frame`.
        spec: the columns. Labels may be missing.
        test_path: rows of the part `test`, in the same form.
        id_modulo: integer and hex ids are taken modulo this.
        max_rows: read no more usable rows of a file; None for all.
        num_sections: groups of contiguous rows.
        day_column: column of time; None to look for one.
    """

    is_prepared = False

    def __init__(
        self,
        path: Path | pl.DataFrame,
        *,
        data_format: str,
        spec: FeatureSpec,
        test_path: Path | pl.DataFrame | None = None,
        id_modulo: int | None = None,
        max_rows: int | None = None,
        num_sections: int = 7,
        day_column: str | None = None,
    ) -> None:
        self.data_format = data_format
        self.spec = _with_bins_as_numbers(spec)
        self.unseen_ids: Mapping[str, int] = {}
        self.quarantine = CountingQuarantine()
        self.day_column = ""
        self._wanted_day_column = "hour" if day_column is None and data_format == "avazu" else day_column
        self._path = path
        self._test_path = test_path
        self._id_modulo = id_modulo
        self._max_rows = max_rows
        self._num_sections = num_sections
        self._sources: list[RowSource] = []
        self._num_dropped = 0
        self.section_names = tuple(f"{number} of {num_sections}" for number in range(1, num_sections + 1))
        if self._test_path is not None:
            self.section_names += ("test rows" if isinstance(test_path, pl.DataFrame) else "test file",)
            self.parts: Mapping[str, str] = {"train": name_of(path), "test": name_of(self._test_path)}
        elif num_sections > 1:
            self.parts = {
                "train": f"groups 1 to {num_sections - 1} of {num_sections} of the rows, in their order",
                "test": f"group {num_sections}",
            }
        else:
            self.parts = {"train": name_of(path)}

    @property
    def rows_read(self) -> int:
        """Rows found so far, good and bad; not those that `max_rows` left out."""
        return sum(source.rows_read for source in self._sources) - self._num_dropped

    def names(self, column: str) -> Callable[[list[object]], list[str]]:
        """Hex ids as Criteo writes them; the empty text is named."""
        encodings = {each.name: each.encoding for each in self.spec.categorical}
        if encodings[column] == "hex":
            return lambda ids: [f"{value:08x}" for value in ids]
        return lambda ids: [str(value) or "(empty)" for value in ids]

    def blocks(self) -> Iterator[InspectBlock]:
        """The usable rows, in order."""
        for block in self._blocks_of(self._path):
            if self._test_path is not None or self._num_sections == 1:
                yield block
                continue
            last = block.sections == self._num_sections - 1
            for part, rows in (("train", ~last), ("test", last)):
                if rows.any():
                    yield block.select(part, rows)
        if self._test_path is not None:
            for block in self._blocks_of(self._test_path):
                yield InspectBlock(
                    part="test",
                    sections=np.full(block.num_rows, self._num_sections),
                    labels=block.labels,
                    dense=block.dense,
                    ids=block.ids,
                    empty=block.empty,
                    days=block.days,
                )

    def _blocks_of(self, path: Path | pl.DataFrame) -> Iterator[InspectBlock]:
        source: RowSource
        if isinstance(path, pl.DataFrame):
            source, labelled = frame_source(path, self.spec, allow_unlabelled=True)
        else:
            source, labelled = open_source(self.data_format, path, self.spec, self.quarantine, allow_unlabelled=True)
        self._sources.append(source)
        parser = RowParser(self.spec, self.quarantine, id_modulo=self._id_modulo, with_labels=labelled)
        ends = self._section_ends(path)
        num_rows = 0
        for block in source.blocks():
            rows = parse_block(parser, block, source)
            good = np.isin(block.lines, rows.lines, assume_unique=True)
            if self._max_rows is not None and num_rows + rows.num_rows > self._max_rows:
                kept = self._max_rows - num_rows
                self._num_dropped += rows.num_rows - kept
                rows = rows.slice(0, kept)
                good[np.flatnonzero(good)[kept:]] = False
            num_rows += rows.num_rows
            # MovieLens comes as one block in the order of time, which is not that of the lines
            positions = np.arange(len(good)) if ends is None else block.numbers
            sections = sections_of(
                positions[good], section_ends(len(good), self._num_sections) if ends is None else ends
            )
            if rows.num_rows:
                yield self._block(block.frame.filter(pl.Series(good)), rows, sections, source.file)
            if num_rows == self._max_rows:
                return

    def _section_ends(self, path: Path | pl.DataFrame) -> np.ndarray | None:
        """None where the number of rows is that of the only block."""
        if self.data_format == "movielens":
            return None
        if isinstance(path, pl.DataFrame) or self.data_format in TYPED_FORMATS:
            typed = len(path) if isinstance(path, pl.DataFrame) else count_typed_rows(path, self.data_format)
            num_rows = typed if self._max_rows is None else min(typed, self._max_rows)
        else:
            is_csv = self.data_format in ("csv", "avazu")
            has_header = is_csv and not self.spec.raw.columns
            num_rows = count_text_rows(path, has_header=has_header, quoted=is_csv, most=self._max_rows)
        return section_ends(num_rows, self._num_sections)

    def _block(self, frame: pl.DataFrame, rows: RawRows, sections: np.ndarray, file: str) -> InspectBlock:
        found = frame.columns if self._wanted_day_column is not None else self._without_features(frame.columns)
        self.day_column = find_day_column(self._wanted_day_column, found, file)
        dense = {}
        for column in self.spec.dense:
            numbers = parse_numbers(frame[column.name])
            dense[column.name] = np.where(numbers.empty, np.nan, numbers.values)
        empty = {}
        for ids in self.spec.categorical:
            lengths = rows.tokens[ids.name].lengths
            is_hex = ids.encoding == "hex"
            cells = frame[ids.raw_name]
            empty[ids.name] = lengths == 0 if lengths is not None else _empty_cells(cells, is_hex)
        return InspectBlock(
            part="train",
            sections=sections,
            labels=rows.labels,
            dense=dense,
            ids=rows.tokens,
            empty=empty,
            days=days_of(frame[self.day_column]) if self.day_column else None,
        )

    def _without_features(self, columns: list[str]) -> list[str]:
        """A column named `time` that is a feature need not be the time of the row."""
        features = {*self.spec.labels, *(column.name for column in self.spec.dense), *self.spec.feature_names}
        return [name for name in columns if name not in features or name in self.spec.keys]


def _with_bins_as_numbers(spec: FeatureSpec) -> FeatureSpec:
    """Bins are not known before they are fitted: their numbers are looked at."""
    sources = {column.raw_name for column in spec.categorical if column.encoding == "bins"}
    numbers = [DenseColumn(name=name) for name in sorted(sources - {column.name for column in spec.dense})]
    others = tuple(column for column in spec.categorical if column.encoding != "bins")
    sizes = {
        column.table: spec.vocabulary_sizes[column.table] for column in others if column.table in spec.vocabulary_sizes
    }
    return replace(spec, dense=(*spec.dense, *numbers), categorical=others, vocabulary_sizes=sizes)


def _empty_cells(cells: pl.Series, is_hex: bool) -> np.ndarray:
    """bool [N]; blanks alone are an empty cell, too, and 0 in a hex column.

    An empty hex cell is the id 0, and a fast parser may deliver no more than that: with 0 counted as empty, the
    report does not depend on which parser there is.
    """
    if cells.dtype == pl.String:
        text = cells.fill_null("").str.strip_chars()
        return ((text.str.strip_chars("0") if is_hex else text) == "").to_numpy()
    return (cells.fill_null(0) == 0).to_numpy() if is_hex else cells.is_null().to_numpy()
