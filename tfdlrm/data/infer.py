"""A schema proposed from rows: what each column looks like, and why it is taken for that.

Rules, not a model: the same rows give the same schema, and a person may change any line of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tfdlrm.checks import count_of, hint, quoted, shortened
from tfdlrm.data.cell_kinds import (
    LONG_TAIL,
    bends,
    find_marks,
    has_long_numbers,
    is_amount,
    is_infinite,
    is_named_as_id,
    marks_of,
    mean_length,
    numbers_of,
    pair_of_labels,
    parts_of_time,
    separator_of,
    time_of,
    value_counts,
    whole_numbers_of,
    why_no_numbers,
    written_otherwise,
)
from tfdlrm.data.cells import BLANKS, hide_missing, plain_column
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.typed import to_polars
from tfdlrm.schema import SCORE_COLUMNS, CategoricalColumn, DenseColumn, FeatureSpec, RawCells
from tfdlrm.yaml_text import dump_item, dump_yaml

_LEAST_ROWS = 20  # fewer do not tell a key
_UNIQUE_IDS = 1000  # so many whole numbers that are all different are names
_HASHED_VALUES = 20_000  # more, and growing with the rows, are hashed
_HASHED_SHARE = 0.3
_HASH_ROWS = 2**20
_PARTS = {"hour": "hour of the day", "weekday": "day of the week"}
_TEXT_LENGTH = 40  # of cells that are written by people, on average


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A schema and the reasons for it.

    Args:
        spec: the schema.
        reasons: column -> one line.
        notes: lines about all rows.
        time_key: the key column that is a time, by which rows can be split; None where there is none.
        has_bad_rows: rows were seen that no schema makes usable.
    """

    spec: FeatureSpec
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()
    time_key: str | None = None
    has_bad_rows: bool = False

    def to_yaml(self) -> str:
        """A `schema.yaml` with a comment a column. What it does not say is as `FeatureSpec` has it by default."""
        spec = self.spec
        lines = [*(f"# {note}" for note in self.notes), *self._section("labels", spec.labels)]
        lines += self._section("dense", spec.dense, DenseColumn(name="-"))
        lines += self._section("categorical", spec.categorical, CategoricalColumn(name="-"))
        lines += self._section("keys", spec.keys) + self._section("ignored", spec.ignored)
        told = {column.table for column in spec.categorical if column.num_ids is not None}
        sizes = {table: size for table, size in spec.vocabulary_sizes.items() if table not in told}
        if sizes:
            lines += dump_yaml({"vocabulary_sizes": sizes}).splitlines()
        raw = {name: value for name, value in spec.raw.to_dict().items() if value}
        if raw:
            lines += dump_yaml({"raw": raw}).splitlines()
        return "\n".join(lines) + "\n"

    def _section(self, key: str, items: Sequence[Any], default: Any = None) -> list[str]:
        if not items:
            return []
        lines = [f"{key}:"]
        for item in items:
            name = item if default is None else item.name
            plain = name
            if default is not None:
                usual = default.to_dict() | {"table": name}
                plain = {k: v for k, v in item.to_dict().items() if k == "name" or v != usual.get(k)}
            lines += [f"  # {self.reasons[name]}", f"  - {dump_item(plain)}"]
        return lines


def propose(
    rows: Any,
    label: str,
    *,
    positive: str | None = None,
    header: bool = True,
    notes: Sequence[str] = (),
    what: str = FRAME_NAME,
    is_whole: bool = True,
) -> Proposal:
    """Propose a schema for the columns of a frame.

    Args:
        rows: as they were read, text or typed columns: a frame of polars or pandas, a table of pyarrow, a mapping.
        label: the column of labels.
        positive: which of its two values is label 1; None for 1, true, yes and the like.
        header: the files have their columns' names.
        notes: lines to put first.
        what: the rows, for messages.
        is_whole: these are all rows; else others follow.

    Raises:
        ValueError: no such label, a label that has not two values, no rows.
    """
    frame = to_polars(rows)
    if not frame.height:
        raise ValueError(f"{what}: no row to look at. Give at least a few.")
    if label not in frame.columns:
        raise ValueError(f"{what}: no column {quoted(label)}{hint(label, frame.columns)}")
    return _Proposer(frame, label, what, is_whole).propose(positive, header, notes)


@dataclass
class _Proposer:
    given: pl.DataFrame
    label: str
    what: str
    is_whole: bool
    reasons: dict[str, str] = field(default_factory=dict)
    dense: list[DenseColumn] = field(default_factory=list)
    categorical: list[CategoricalColumn] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    marked: dict[str, str] = field(default_factory=dict)
    time_key: str | None = None
    has_bad_rows: bool = False
    is_one: pl.Series = field(default_factory=pl.Series)  # of the label; null where there is none

    def propose(self, positive: str | None, header: bool, notes: Sequence[str]) -> Proposal:
        columns, odd = [], {}
        for cells in self.given.get_columns():
            try:
                columns.append(plain_column(cells))
            except ValueError:
                odd[cells.name] = f"{cells.dtype}: no feature can be made of it"
        frame = pl.DataFrame(columns)
        if self.label in odd:
            raise ValueError(f"{self.what}: label {quoted(self.label)} is {odd[self.label]}. Give another column.")
        marks = find_marks(frame)
        self.marked = marks_of(frame, marks)
        frame = hide_missing(frame, marks)
        stripped = frame.with_columns(pl.col(pl.String).str.strip_chars(BLANKS))
        has_blanks = not stripped.equals(frame)
        frame = stripped
        label_values = self._label(frame[self.label], positive)
        seen: dict[bytes, str] = {frame[self.label].hash().to_numpy().tobytes(): self.label}
        for name in self.given.columns:
            if name in odd:
                self._ignore(name, odd[name])
            elif name != self.label:
                self._column(frame[name], seen)
        raw = RawCells(
            columns=() if header else tuple(self.given.columns),
            missing=marks,
            label_values={} if label_values is None else {self.label: label_values},
            strip=has_blanks,
        )
        if not self.dense and not self.categorical:
            raise ValueError(
                f"{self.what}: no column to learn from beside the label: "
                + shortened("; ".join(f"{quoted(name)}: {said}" for name, said in self.reasons.items()))
            )
        spec = FeatureSpec(
            labels=(self.label,),
            dense=tuple(self.dense),
            categorical=tuple(self.categorical),
            keys=tuple(self.keys),
            vocabulary_sizes=self.sizes,
            ignored=tuple(self.ignored),
            raw=raw,
        )
        return Proposal(
            spec=spec,
            reasons={name: shortened(said) for name, said in self.reasons.items()},
            notes=tuple(notes),
            time_key=self.time_key,
            has_bad_rows=self.has_bad_rows,
        )

    def _label(self, cells: pl.Series, positive: str | None) -> tuple[str, str] | None:
        """(text of 0, text of 1), or None where they are 0 and 1 already."""
        what = f"{self.what}: label {quoted(cells.name)}"
        if cells.dtype.is_nested():
            raise ValueError(f"{what} holds lists. Give a column of two values.")
        numbers = whole_numbers_of(cells)
        all_texts = cells.cast(pl.String).str.strip_chars()
        if numbers is not None:
            all_texts = all_texts.cast(pl.Float64, strict=False).cast(pl.Int64).cast(pl.String)
        all_texts = all_texts.set(all_texts == "", None)
        texts = all_texts.drop_nulls()
        counts = value_counts(texts)
        found = sorted(value for value, _ in counts)
        shown = ", ".join(f"{quoted(value)} ({rows:,} rows)" for value, rows in counts[:5])
        if len(counts) != 2:
            most = " and others" if len(counts) > 5 else ""
            raise ValueError(
                f"{what} has {len(counts)} {'value' if len(counts) == 1 else 'values'} where two are expected: "
                f"{shown or 'every cell is empty'}{most}. Give a column of two values, or rows that have both."
            )
        pair = pair_of_labels(found, positive)
        if pair is None:
            one = f"{quoted(positive)} is neither" if positive is not None else "Say which of them is 1"
            raise ValueError(f"{what} has the values {shown}. {one}: --positive {quoted(found[1])}, for example.")
        share = sum(rows for value, rows in counts if value == pair[1]) / len(texts)
        self.is_one = all_texts == pair[1]
        missing = len(cells) - len(texts)
        said = f"{quoted(pair[1])} in {share:.2%} of the rows"
        if missing:
            self.has_bad_rows = True
            said += f"; {missing:,} rows have no label: such rows are bad (--bad-rows quarantine)"
        self.reasons[cells.name] = said
        return None if pair == ("0", "1") or (cells.dtype == pl.Boolean and pair == ("false", "true")) else pair

    def _ignore(self, name: str, reason: str) -> None:
        self.ignored.append(name)
        self.reasons[name] = reason

    def _column(self, cells: pl.Series, seen: dict[bytes, str]) -> None:
        name, same = cells.name, cells.hash().to_numpy().tobytes()
        if cells.dtype == pl.String:
            cells = cells.set(cells.str.strip_chars() == "", None)
        there = cells.drop_nulls()
        values = there.n_unique() if not there.dtype.is_nested() else 2
        if not len(there):
            self._ignore(name, "every cell is empty")
        elif values == 1 and len(there) == len(cells):
            self._ignore(name, f"one value, {quoted(there[0])}, in every row")
        elif same in seen:
            self._ignore(name, f"the same as {quoted(seen[same])}")
        elif there.dtype.is_nested():
            self._bag(cells, there.list.len().unique().to_list(), " ", "lists")
        else:
            seen[same] = name
            self._single(cells, there, values)

    def _single(self, cells: pl.Series, there: pl.Series, values: int) -> None:
        empty = 1.0 - len(there) / len(cells)
        said = f"{values:,} {'value' if values == 1 else 'values'}"
        if empty:
            said += f", {empty:.1%} of the cells empty{self.marked.get(cells.name, '')}"
        time = time_of(there)
        if time is not None:
            self._time(cells, time)
        elif (otherwise := written_otherwise(there)) is not None:
            self._ignore(cells.name, otherwise)
        elif self._is_key(cells, there, values):
            self._key(cells.name, "every row has its own value")
        elif (separator := separator_of(there)) is not None:
            self._bag(cells, [], separator, f"values separated by {quoted(separator)}, such as {quoted(there[0])}")
        elif (numbers := numbers_of(there.filter(~is_infinite(there)))) is not None and is_amount(
            cells.name, numbers, values
        ):
            if len(numbers) < len(there):
                self.has_bad_rows = True
                said += f"; {len(there) - len(numbers):,} infinite: such rows are bad (--bad-rows quarantine)"
            self._amount(cells.name, numbers, said, empty)
            self._bins(cells.set(is_infinite(cells), None), numbers)
        else:
            self._kinds(cells.name, there, values, said)

    def _time(self, cells: pl.Series, kind: str) -> None:
        for encoding in parts_of_time(cells.drop_nulls(), is_whole=self.is_whole):
            self._derive(CategoricalColumn(name=f"{cells.name}_{encoding}", source=cells.name, encoding=encoding))
            self.reasons[self.categorical[-1].name] = f"{_PARTS[encoding]} of {quoted(cells.name)}"
        if cells.null_count():
            self._key(
                cells.name,
                f"a time ({kind}), but for {count_of(cells.null_count(), 'row')}: they cannot be split by it",
            )
            return
        self.time_key = self.time_key or cells.name
        self._key(cells.name, f"a time ({kind}): rows can be split by it (--split time-column)")

    def _key(self, name: str, reason: str) -> None:
        if name in SCORE_COLUMNS:
            self._ignore(name, f"{reason}; predict writes a column of this name: rename it to keep it as a key")
            return
        self.keys.append(name)
        self.reasons[name] = reason

    def _is_key(self, cells: pl.Series, there: pl.Series, values: int) -> bool:
        if values != len(cells) or len(cells) < _LEAST_ROWS:
            return False
        numbers = whole_numbers_of(there)
        if numbers is None:
            fractions = there.cast(pl.String).str.contains(r"^\s*[-+]?\d*\.\d+\s*$").mean()
            return has_long_numbers(there) or (float(fractions) < 0.5 and mean_length(there) <= _TEXT_LENGTH)  # type: ignore[arg-type]
        is_counter = int(numbers.max()) - int(numbers.min()) + 1 == values  # type: ignore[arg-type]
        is_sorted = bool(numbers.is_sorted()) or bool(numbers.is_sorted(descending=True))
        return is_counter or is_sorted or values >= _UNIQUE_IDS or is_named_as_id(cells.name)

    def _bag(self, cells: pl.Series, lengths: Sequence[int], separator: str, said: str) -> None:
        if cells.dtype.is_nested() and cells.dtype.inner.is_float():  # type: ignore[attr-defined]
            self._ignore(cells.name, "lists of numbers with fractions: no feature can be made of them")
            return
        if self._has_name_of_dense_vector(cells.name):
            return
        hotness = lengths[0] if len(lengths) == 1 and lengths[0] > 1 and not cells.null_count() else None
        self.categorical.append(
            CategoricalColumn(
                name=cells.name, encoding="vocabulary", id_policy="oov", hotness=hotness, separator=separator
            )
        )
        self.reasons[cells.name] = said

    def _has_name_of_dense_vector(self, name: str) -> bool:
        if name == "dense":
            self._ignore(name, "a categorical column, and 'dense' is the name of the dense vector: rename it")
        return name == "dense"

    def _amount(self, name: str, numbers: pl.Series, said: str, empty: float) -> None:
        low, middle, high = (float(numbers.quantile(share) or 0.0) for share in (0.0, 0.5, 1.0))
        tail = float(numbers.quantile(0.99) or 0.0)
        is_long = low >= 0.0 and tail >= LONG_TAIL * max(middle, 1.0)
        missing = _rounded(middle, high - low) if empty or not is_long else 0.0
        self.dense.append(DenseColumn(name=name, transform="log1p" if is_long else "standardize", missing=missing))
        shown = [f"{_rounded(value, high - low):.15g}" for value in (low, high, middle)]
        self.reasons[name] = f"{shown[0]} to {shown[1]}, median {shown[2]}; {said}{'; a long tail' if is_long else ''}"

    def _bins(self, cells: pl.Series, numbers: pl.Series) -> None:
        known = cells.is_not_null() & self.is_one.is_not_null()
        is_one = self.is_one.filter(known).to_numpy()
        values = numbers.filter(known.filter(cells.is_not_null())).to_numpy()
        if bends(values, is_one, self.dense[-1].transform):
            self._derive(CategoricalColumn(name=f"{cells.name}_bins", source=cells.name, encoding="bins"))
            said = f"bins of {quoted(cells.name)}: the label does not go straight with it"
            self.reasons[self.categorical[-1].name] = said

    def _derive(self, column: CategoricalColumn) -> None:
        name = column.name
        while name in self.given.columns or name in self.reasons:
            name += "_"
        self.categorical.append(replace(column, name=name, table=name))

    def _kinds(self, name: str, there: pl.Series, values: int, said: str) -> None:
        if self._has_name_of_dense_vector(name):
            return
        text = there.cast(pl.String)
        most = value_counts(text)[0]
        said += f", most often {quoted(most[0])} ({most[1] / len(there):.1%})"
        if values > 0.9 * len(there) and len(there) >= _LEAST_ROWS and mean_length(text) > _TEXT_LENGTH:
            self._ignore(name, f"free text, such as {quoted(text[0])}")
            return
        if there.dtype == pl.String:
            said += why_no_numbers(text)
        hashed = values > _HASHED_VALUES and values > _HASHED_SHARE * len(there)
        if hashed:
            self.sizes[name] = _HASH_ROWS
            said += f"; more in more rows: hashed into {_HASH_ROWS:,} rows"
        self.categorical.append(
            CategoricalColumn(name=name, encoding="hash")
            if hashed
            else CategoricalColumn(name=name, encoding="vocabulary", id_policy="oov")
        )
        self.reasons[name] = said


def _rounded(value: float, spread: float) -> float:
    """A number with as few digits, six at least, as change it by no more than a thousandth of the spread."""
    digits = next(digits for digits in range(6, 18) if abs(float(f"{value:.{digits}g}") - value) <= spread / 1000)
    return float(f"{value:.{digits}g}")
