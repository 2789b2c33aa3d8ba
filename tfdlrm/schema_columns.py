"""The columns that a schema has, and how cells of raw files are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.records import FrozenMapping, Record

Transform = Literal["log1p", "standardize", "identity", "clip"]
IdPolicy = Literal["error", "clip", "modulo", "oov", "hash"]
Encoding = Literal["integer", "vocabulary", "hex", "hash", "bins", "hour", "weekday"]

# Ids that are made of a number or a time: 0 where the cell is empty, others from 1.
TIME_IDS: dict[Encoding, int] = {"hour": 24, "weekday": 7}
DERIVED = ("bins", *TIME_IDS)
DEFAULT_BINS = 32
MOST_BINS = 256


@dataclass(frozen=True, kw_only=True)
class DenseColumn(Record):
    """One number a row, and how it is transformed before the bottom MLP.

    Args:
        name: column name.
        transform: `log1p` is ln(max(x, 0) + 1), Criteo's; `standardize` is (x - mean) / std, fitted on the
            training part; `clip` limits to [minimum, maximum]; `identity` leaves it.
        missing: the raw value used where the cell is empty; None makes an empty cell an error.
        mean, std: of the raw column, for `standardize`; None until fitted.
        minimum, maximum: bounds, for `clip`; at least one.

    Raises:
        ValueError: a value is not valid, or a parameter of another transform is given.

    Example:
        >>> DenseColumn(name="age", transform="clip", minimum=0, maximum=100).maximum
        100.0
    """

    name: str
    transform: Transform = "identity"
    missing: float | None = 0.0
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        owner = f"dense column {quoted(self.name)}"
        checks.check_name("DenseColumn", "name", self.name)
        checks.check_choice(owner, "transform", self.transform, get_args(Transform))
        for name in ("missing", "mean", "minimum", "maximum"):
            self._set(**{name: checks.check_optional(checks.check_number, owner, name, getattr(self, name))})
        self._set(std=checks.check_optional(checks.check_number, owner, "std", self.std, above=0.0))
        for transform, names in (("standardize", ("mean", "std")), ("clip", ("minimum", "maximum"))):
            given = [name for name in names if getattr(self, name) is not None]
            if given and self.transform != transform:
                raise ValueError(
                    f"{owner}: {given[0]}={quoted(getattr(self, given[0]))} has no meaning with "
                    f"transform={quoted(self.transform)}. Remove it, or set transform: {transform}."
                )
            if transform == self.transform == "standardize" and len(given) == 1:
                raise ValueError(f"{owner}: {given[0]} is given without its partner. Give both mean and std, or none.")
            if transform == self.transform == "clip" and not given:
                raise ValueError(f"{owner}: transform='clip' has no bound. Give minimum, maximum or both.")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"{owner}: minimum={self.minimum} is above maximum={self.maximum}. Swap them.")

    @property
    def is_fitted(self) -> bool:
        """Whether the transform has every number it needs."""
        return self.transform != "standardize" or self.std is not None


@dataclass(frozen=True, kw_only=True)
class CategoricalColumn(Record):
    """One id or a bag of ids a row, and the table that holds their vectors.

    Args:
        name: column name.
        table: the embedding table it reads, "" for one of the column's own name. Columns may share a table.
        hotness: ids a bag; None where it varies (ragged).
        id_policy: what happens to an id outside [0, V): `error` names it; `clip` to the nearest end;
            `modulo` V; `oov` sends it to row 0 and counts it; `hash` hashes every id into V rows.
        encoding: how a raw cell becomes an id: `integer` is one already; `vocabulary` is looked up in the
            table's vocabulary; `hex` is Criteo's, hex string to integer to vocabulary; `hash` hashes the
            string into V rows; `bins` is 1 + the quantile bin of a number; `hour` and `weekday` are 1 + the hour of
            the day and 1 + the day of the week (Monday 0) of a time. Of these three an empty cell is 0.
        separator: between the ids of a cell that holds several.
        weights: name of the column that holds one weight per id, "" for none.
        source: of `bins`, `hour` and `weekday`: the column of the number or time, "" for the column's own name. It may
            be a dense column or a key as well.
        bins: of `bins`: how many there are at most; equal values stay together.
        edges: of `bins`: where one ends and the next begins, ascending; None until fitted on the training part.

    Example:
        >>> CategoricalColumn(name="age_bins", source="age", encoding="bins", bins=8).num_ids
        9
    """

    name: str
    table: str = ""
    hotness: int | None = 1
    id_policy: IdPolicy = "error"
    encoding: Encoding = "integer"
    separator: str = " "
    weights: str = ""
    source: str = ""
    bins: int | None = None
    edges: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        owner = f"categorical column {quoted(self.name)}"
        checks.check_name("CategoricalColumn", "name", self.name)
        checks.check_text(owner, "table", self.table)
        self._set(table=checks.check_name(owner, "table", self.table or self.name))
        self._set(hotness=checks.check_optional(checks.check_integer, owner, "hotness", self.hotness, minimum=1))
        checks.check_choice(owner, "id_policy", self.id_policy, get_args(IdPolicy))
        checks.check_choice(owner, "encoding", self.encoding, get_args(Encoding))
        if not checks.check_text(owner, "separator", self.separator):
            raise ValueError(f"{owner}: separator is empty. Give the character between two ids, such as a blank.")
        checks.check_text(owner, "weights", self.weights)
        checks.check_text(owner, "source", self.source)
        self._check_derived(owner)

    def _check_derived(self, owner: str) -> None:
        meaning = {"source": DERIVED, "bins": ("bins",), "edges": ("bins",)}
        for name, encodings in meaning.items():
            if getattr(self, name) not in (None, "") and self.encoding not in encodings:
                raise ValueError(
                    f"{owner}: {name}={quoted(getattr(self, name))} has no meaning with encoding="
                    f"{quoted(self.encoding)}. Remove it, or set encoding: {' or '.join(encodings)}."
                )
        if self.encoding not in DERIVED:
            return
        for name, only in (("hotness", 1), ("id_policy", "error"), ("weights", "")):
            if getattr(self, name) != only:
                raise ValueError(
                    f"{owner}: {name}={quoted(getattr(self, name))} has no meaning with encoding="
                    f"{quoted(self.encoding)}, which gives one id of the table for every cell. Remove it."
                )
        if self.encoding == "bins":
            bins = DEFAULT_BINS if self.bins is None else self.bins
            self._set(bins=checks.check_integer(owner, "bins", bins, minimum=2, maximum=MOST_BINS))
        if self.edges is not None:
            edges = [
                checks.check_number(owner, "edges", edge) for edge in checks.check_list(owner, "edges", self.edges)
            ]
            if sorted(set(edges)) != edges or len(edges) >= (self.bins or 0):
                raise ValueError(
                    f"{owner}: edges={quoted(edges)} must ascend, and be fewer than bins={self.bins}. Correct them, or "
                    "remove them to have them fitted."
                )
            self._set(edges=tuple(edges))

    @property
    def raw_name(self) -> str:
        """The column of raw rows that it is made of."""
        return self.source or self.name

    @property
    def num_ids(self) -> int | None:
        """Ids that the column can have, where its encoding tells."""
        if self.encoding == "bins":
            return (self.bins or 0) + 1
        return TIME_IDS[self.encoding] + 1 if self.encoding in TIME_IDS else None


@dataclass(frozen=True, kw_only=True)
class RawCells(Record):
    """What raw files do not say of themselves: names of columns without a header, marks of missing values, labels.

    Args:
        columns: names of the fields of text files that have no header line, in order; empty where they have one.
        missing: texts of cells that are read as empty, such as `?` or `NA`; blanks around them do not count.
        label_values: label column -> the texts of its label 0 and its label 1. Labels not named are 0 and 1.
        strip: blanks around texts of vocabularies and hashed ones do not count: ` Rome` is `Rome`.

    Example:
        >>> RawCells(missing=("?",), label_values={"income": ("under 50000", "over 50000")}).to_dict()["missing"]
        ['?']
    """

    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    label_values: Mapping[str, tuple[str, str]] = field(default_factory=FrozenMapping)
    strip: bool = False

    def __post_init__(self) -> None:
        owner = "RawCells"
        self._set(
            columns=checks.check_names(owner, "columns", self.columns),
            missing=tuple(
                checks.check_text(owner, "missing", text).strip()
                for text in checks.check_list(owner, "missing", self.missing)
            ),
        )
        checks.check_unique(owner, "columns", self.columns)
        checks.check_flag(owner, "strip", self.strip)
        checks.check_mapping(owner, "label_values", self.label_values)
        values = {label: self._two_texts(label, texts) for label, texts in self.label_values.items()}
        self._set(label_values=FrozenMapping(values))

    def _two_texts(self, label: str, texts: tuple[str, str]) -> tuple[str, str]:
        owner, name = "RawCells", f"label_values of {quoted(label)}"
        found = [checks.check_text(owner, name, text).strip() for text in checks.check_list(owner, name, texts)]
        if len(found) != 2 or found[0] == found[1]:
            raise ValueError(
                f"{owner}: {name} is {quoted(list(texts))}. Give two texts: that of label 0 and that of label 1."
            )
        return found[0], found[1]
