"""A schema proposed from rows: what each column looks like, and why it is taken for that.

Rules, not a model: the same rows give the same schema, and a person may change any line of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdlrm.checks import hint, quoted, shortened
from tfdlrm.data.cell_kinds import (
    find_marks,
    has_long_numbers,
    is_amount,
    is_named_as_id,
    mean_length,
    numbers_of,
    pair_of_labels,
    separator_of,
    time_of,
    value_counts,
    whole_numbers_of,
    why_no_numbers,
)
from tfdlrm.data.column_types import hide_missing, plain_column
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.frames import to_polars
from tfdlrm.data.polars_extra import pl
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, RawCells
from tfdlrm.yaml_text import dump_item, dump_yaml

_LEAST_ROWS = 20  # fewer do not tell a key
_HASHED_VALUES = 20_000  # more, and growing with the rows, are hashed
_HASHED_SHARE = 0.3
_HASH_ROWS = 2**20
_TEXT_LENGTH = 40  # of cells that are written by people, on average


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A schema and the reasons for it.

    Args:
        spec: the schema.
        reasons: column -> one line.
        notes: lines about all rows.
    """

    spec: FeatureSpec
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def time_key(self) -> str | None:
        """The key column that is a time, by which rows can be split."""
        return next((key for key in self.spec.keys if "a time" in self.reasons[key]), None)

    def to_yaml(self) -> str:
        """A `schema.yaml` with a comment a column. What it does not say is as `FeatureSpec` has it by default."""
        spec = self.spec
        lines = [*(f"# {note}" for note in self.notes), *self._section("labels", spec.labels)]
        lines += self._section("dense", spec.dense, DenseColumn(name="-"))
        lines += self._section("categorical", spec.categorical, CategoricalColumn(name="-"))
        lines += self._section("keys", spec.keys) + self._section("ignored", spec.ignored)
        if spec.vocabulary_sizes:
            lines += dump_yaml({"vocabulary_sizes": dict(spec.vocabulary_sizes)}).splitlines()
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
) -> Proposal:
    """Propose a schema for the columns of a frame.

    Args:
        rows: as they were read, text or typed columns: a frame of polars or pandas, a table of pyarrow, a mapping.
        label: the column of labels.
        positive: which of its two values is label 1; None for 1, true, yes and the like.
        header: the files have their columns' names.
        notes: lines to put first.
        what: the rows, for messages.

    Raises:
        ValueError: no such label, a label that has not two values, no rows.
    """
    frame = to_polars(rows)
    if not frame.height:
        raise ValueError(f"{what}: no row to look at. Give at least a few.")
    if label not in frame.columns:
        raise ValueError(f"{what}: no column {quoted(label)}{hint(label, frame.columns)}")
    return _Proposer(frame, label, what).propose(positive, header, notes)


@dataclass
class _Proposer:
    given: pl.DataFrame
    label: str
    what: str
    reasons: dict[str, str] = field(default_factory=dict)
    dense: list[DenseColumn] = field(default_factory=list)
    categorical: list[CategoricalColumn] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

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
        frame = hide_missing(frame, marks)
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
        return Proposal(spec=spec, reasons={k: shortened(v) for k, v in self.reasons.items()}, notes=tuple(notes))

    def _label(self, cells: pl.Series, positive: str | None) -> tuple[str, str] | None:
        """(text of 0, text of 1), or None where they are 0 and 1 already."""
        what = f"{self.what}: label {quoted(cells.name)}"
        if cells.dtype.is_nested():
            raise ValueError(f"{what} holds lists. Give a column of two values.")
        numbers = whole_numbers_of(cells)
        texts = (cells.cast(pl.String) if numbers is None else numbers.cast(pl.String)).str.strip_chars()
        texts = texts.set(texts == "", None).drop_nulls()
        counts = value_counts(texts)
        found = sorted(value for value, _ in counts)
        shown = ", ".join(f"{quoted(value)} ({rows:,} rows)" for value, rows in counts[:5])
        if len(counts) != 2:
            most = " and others" if len(counts) > 5 else ""
            raise ValueError(
                f"{what} has {len(counts)} values where two are expected: {shown}{most}. Give a column of two values, "
                "or rows that have both."
            )
        pair = pair_of_labels(found, positive)
        if pair is None:
            one = f"{quoted(positive)} is neither" if positive is not None else "Say which of them is 1"
            raise ValueError(f"{what} has the values {shown}. {one}: --positive {quoted(found[1])}, for example.")
        share = sum(rows for value, rows in counts if value == pair[1]) / len(texts)
        missing = len(cells) - len(texts)
        said = f"{quoted(pair[1])} in {share:.2%} of the rows"
        if missing:
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
        said = f"{values:,} values" + (f", {empty:.1%} of the cells empty" if empty else "")
        time = time_of(there)
        if time is not None:
            kind, sortable = time
            if sortable:
                self._key(cells.name, f"a time ({kind}): rows can be split by it (--split time-column)")
            else:
                self._ignore(cells.name, f"dates such as {quoted(there[0])}: write them as 2024-01-31 to use them")
        elif self._is_key(cells, there, values):
            self._key(cells.name, "every row has its own value")
        elif (separator := separator_of(there)) is not None:
            self._bag(cells, [], separator, f"values separated by {quoted(separator)}, such as {quoted(there[0])}")
        elif (numbers := numbers_of(there)) is not None and is_amount(cells.name, numbers, values):
            self._amount(cells.name, numbers, said, empty)
        else:
            self._kinds(cells.name, there, values, said)

    def _key(self, name: str, reason: str) -> None:
        self.keys.append(name)
        self.reasons[name] = reason

    def _is_key(self, cells: pl.Series, there: pl.Series, values: int) -> bool:
        if values != len(cells) or len(cells) < _LEAST_ROWS:
            return False
        numbers = whole_numbers_of(there)
        if numbers is None:
            fractions = there.cast(pl.String).str.contains(r"^\s*[-+]?\d*\.\d+\s*$").mean()
            return has_long_numbers(there) or (float(fractions) < 0.5 and mean_length(there) <= _TEXT_LENGTH)  # type: ignore[arg-type]
        return bool(numbers.is_sorted()) or bool(numbers.is_sorted(descending=True)) or is_named_as_id(cells.name)

    def _bag(self, cells: pl.Series, lengths: Sequence[int], separator: str, said: str) -> None:
        hotness = lengths[0] if len(lengths) == 1 and lengths[0] > 1 and not cells.null_count() else None
        self.categorical.append(
            CategoricalColumn(
                name=cells.name, encoding="vocabulary", id_policy="oov", hotness=hotness, separator=separator
            )
        )
        self.reasons[cells.name] = said

    def _amount(self, name: str, numbers: pl.Series, said: str, empty: float) -> None:
        low, middle, high = (float(numbers.quantile(share) or 0.0) for share in (0.0, 0.5, 1.0))
        tail = float(numbers.quantile(0.99) or 0.0)
        is_long = low >= 0.0 and tail >= 10.0 * max(middle, 1.0)
        missing = float(f"{middle:.6g}") if empty or not is_long else 0.0
        self.dense.append(DenseColumn(name=name, transform="log1p" if is_long else "standardize", missing=missing))
        self.reasons[name] = f"{low:.6g} to {high:.6g}, median {middle:.6g}; {said}" + (
            "; a long tail" if is_long else ""
        )

    def _kinds(self, name: str, there: pl.Series, values: int, said: str) -> None:
        text = there.cast(pl.String)
        most = value_counts(text)[0]
        said += f", most often {quoted(most[0])} ({most[1] / len(there):.1%})"
        if values > 0.9 * len(there) and len(there) >= _LEAST_ROWS and mean_length(text) > _TEXT_LENGTH:
            self._ignore(name, f"free text, such as {quoted(text[0])}")
            return
        numbers = text.str.strip_chars().str.replace_all(",", "").cast(pl.Float64, strict=False)
        if there.dtype == pl.String and numbers.null_count() < len(there) and numbers_of(there) is None:
            said += why_no_numbers(text, numbers)
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
