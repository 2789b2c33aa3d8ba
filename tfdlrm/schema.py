"""FeatureSpec: the ordered labels, dense and categorical columns of a dataset. The order is a contract.

A dataset and every model trained on it carry the same `schema.yaml`; readers, layers and exported signatures
take their feature order from it and never from the order of a dict.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted, reject_unknown_keys
from tfdlrm.records import FrozenMapping, Reader, Record, each

__all__ = [
    "CategoricalColumn",
    "DenseColumn",
    "Encoding",
    "FeatureSpec",
    "IdPolicy",
    "RawCells",
    "Transform",
    "criteo_feature_spec",
    "reject_unknown_keys",
]

Transform = Literal["log1p", "standardize", "identity", "clip"]
IdPolicy = Literal["error", "clip", "modulo", "oov", "hash"]
Encoding = Literal["integer", "vocabulary", "hex", "hash"]

SCHEMA_FILE = "schema.yaml"
SCORE_COLUMNS = ("probability", "logit")  # of the file that predict writes, beside the keys
ROW_ID = "row_id"  # the key that every row has, in a file or by its number
OOV_ID = 0  # the row of unknown values, under `id_policy: oov`
NUM_CRITEO_DENSE = 13
NUM_CRITEO_CATEGORICAL = 26


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
            string into V rows.
        separator: between the ids of a cell that holds several.
        weights: name of the column that holds one weight per id, "" for none.
    """

    name: str
    table: str = ""
    hotness: int | None = 1
    id_policy: IdPolicy = "error"
    encoding: Encoding = "integer"
    separator: str = " "
    weights: str = ""

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


@dataclass(frozen=True, kw_only=True)
class RawCells(Record):
    """What raw files do not say of themselves: names of columns without a header, marks of missing values, labels.

    Args:
        columns: names of the fields of text files that have no header line, in order; empty where they have one.
        missing: texts of cells that are read as empty, such as `?` or `NA`; blanks around them do not count.
        label_values: label column -> the texts of its label 0 and its label 1. Labels not named are 0 and 1.

    Example:
        >>> RawCells(missing=("?",), label_values={"income": ("under 50000", "over 50000")}).to_dict()["missing"]
        ['?']
    """

    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    label_values: Mapping[str, tuple[str, str]] = field(default_factory=FrozenMapping)

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


@dataclass(frozen=True, kw_only=True)
class FeatureSpec(Record):
    """The columns of a dataset, in the order every reader, model and signature keeps.

    Args:
        labels: label columns, one a task; the first is the main one.
        dense: numeric columns, in the order of the dense vector `[B, num_dense]`.
        categorical: id columns, in the order of the interaction.
        keys: columns carried beside the features (row id, group of the grouped AUC); never model inputs.
        vocabulary_sizes: table name -> V, rows of the table; may be empty before vocabularies are built.
        ignored: columns that files may have, and nothing reads.
        raw: how cells of raw files are written.

    Raises:
        ValueError: a name occurs twice, or a size is given for a table that no column reads.

    Example:
        >>> spec = FeatureSpec(labels=("click",), dense=(DenseColumn(name="age"),),
        ...                    categorical=(CategoricalColumn(name="item"),), vocabulary_sizes={"item": 10})
        >>> spec.feature_names, spec.num_dense
        (('item',), 1)
    """

    labels: tuple[str, ...]
    dense: tuple[DenseColumn, ...] = ()
    categorical: tuple[CategoricalColumn, ...] = ()
    keys: tuple[str, ...] = ()
    vocabulary_sizes: Mapping[str, int] = field(default_factory=FrozenMapping)
    ignored: tuple[str, ...] = ()
    raw: RawCells = field(default_factory=RawCells)

    readers: ClassVar[Mapping[str, Reader]] = {
        "dense": each(DenseColumn.from_dict),
        "categorical": each(CategoricalColumn.from_dict),
        "raw": RawCells.from_dict,
    }

    def __post_init__(self) -> None:
        self._set(
            labels=checks.check_names("FeatureSpec", "labels", self.labels),
            keys=checks.check_names("FeatureSpec", "keys", self.keys),
            ignored=checks.check_names("FeatureSpec", "ignored", self.ignored),
            dense=checks.check_instances("FeatureSpec", "dense", self.dense, DenseColumn),
            categorical=checks.check_instances("FeatureSpec", "categorical", self.categorical, CategoricalColumn),
        )
        if not self.labels:
            raise ValueError("FeatureSpec: labels is empty. Name at least one label column.")
        # A key may also be a feature (the user id that groups the AUC), so keys are checked by themselves.
        columns = [*self.labels, *(c.name for c in self.dense), *self.feature_names]
        checks.check_unique("FeatureSpec", "columns", columns)
        checks.check_unique("FeatureSpec", "keys", self.keys)
        # In a batch the dense vector stands beside the features under this name.
        if "dense" in self.feature_names:
            raise ValueError(
                "FeatureSpec: a categorical column is named 'dense', the name of the dense vector. Rename it."
            )
        checks.check_mapping("FeatureSpec", "vocabulary_sizes", self.vocabulary_sizes)
        reject_unknown_keys("FeatureSpec.vocabulary_sizes", self.vocabulary_sizes, self.table_names)
        sizes = {
            table: checks.check_integer("FeatureSpec.vocabulary_sizes", table, size, minimum=1)
            for table, size in self.vocabulary_sizes.items()
        }
        self._set(vocabulary_sizes=FrozenMapping(sizes))
        self._check_raw()

    def _check_raw(self) -> None:
        checks.check_instance("FeatureSpec", "raw", self.raw, RawCells)
        checks.check_unique("FeatureSpec", "ignored", self.ignored)
        for name in SCORE_COLUMNS:
            if name in self.keys:
                raise ValueError(
                    f"FeatureSpec: keys has {quoted(name)}, and predict writes a column of that name. Rename it, or "
                    "put it under ignored."
                )
        read = self.column_names
        for name in self.ignored:
            if name in read:
                raise ValueError(
                    f"FeatureSpec: ignored names {quoted(name)}, which is a label, feature or key too. Take one out."
                )
        reject_unknown_keys("FeatureSpec.raw.label_values", self.raw.label_values, self.labels)
        if self.raw.columns:
            known = {*read, *self.ignored, ROW_ID}
            for name in known.difference(self.raw.columns, [ROW_ID]):
                raise ValueError(
                    f"FeatureSpec: column {quoted(name)} is not among raw.columns, the fields of a line. Add it there, "
                    "or leave raw.columns empty where files have a header."
                )
            for name in self.raw.columns:
                if name not in known:
                    raise ValueError(
                        f"FeatureSpec: raw.columns has {quoted(name)}, which is no column of the schema. Add it to "
                        "dense, categorical, keys or ignored."
                    )

    @property
    def label(self) -> str:
        """The first label: the one that metrics without a task name refer to."""
        return self.labels[0]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Every column that files must have, each once: labels, features, weights of ids, keys."""
        weights = (column.weights for column in self.categorical if column.weights)
        keys = (key for key in self.keys if key != ROW_ID)
        return tuple(
            dict.fromkeys([*self.labels, *(column.name for column in self.dense), *self.feature_names, *weights, *keys])
        )

    @property
    def num_dense(self) -> int:
        """Width of the dense vector."""
        return len(self.dense)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the categorical columns, in order."""
        return tuple(column.name for column in self.categorical)

    @property
    def table_names(self) -> tuple[str, ...]:
        """Tables in order of the first column that reads them."""
        return tuple(dict.fromkeys(column.table for column in self.categorical))

    def with_vocabulary_sizes(self, sizes: Mapping[str, int]) -> FeatureSpec:
        """The same columns with these sizes added to, or in place of, the present ones."""
        return replace(self, vocabulary_sizes={**self.vocabulary_sizes, **sizes})

    @classmethod
    def infer(cls, frame: Any, label: str, *, positive: str | None = None) -> FeatureSpec:
        """A schema proposed from rows: what each column looks like decides what becomes of it.

        `tfdlrm data schema FILE` proposes the same of a file, and says why.

        Args:
            frame: a frame of polars or pandas, a table of pyarrow, or a mapping of columns.
            label: the column of labels, which has two values.
            positive: which of them is 1; None for 1, true, yes and the like.

        Raises:
            ValueError: no such column, or a label that has not two values.
            ImportError: polars is not installed.

        Example:
            >>> spec = FeatureSpec.infer({"click": [0, 1, 0], "price": [1.5, 2.5, 0.5], "city": list("aba")}, "click")
            >>> spec.dense[0].name, spec.feature_names
            ('price', ('city',))
        """
        from tfdlrm.data.infer import propose

        return propose(frame, label, positive=positive).spec

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `schema.yaml` into a folder, or the file of that name; returns the file."""
        file = _schema_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.to_yaml(), encoding="utf-8")
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read `schema.yaml` from a folder, or the file of that name.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is not a valid schema; the message names file and key.
        """
        file = _schema_file(path)
        if not file.exists():
            raise FileNotFoundError(f"{file}: no schema there. Give a folder that holds {SCHEMA_FILE}, or the file.")
        return cls.from_file(file)


def _schema_file(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    return target if target.suffix in (".yaml", ".yml") else target / SCHEMA_FILE


def criteo_feature_spec(vocabulary_sizes: tuple[int, ...] = ()) -> FeatureSpec:
    """Criteo's columns: `label`, `int_1` to `int_13` (log1p, missing 0) and `cat_1` to `cat_26` (hex).

    Args:
        vocabulary_sizes: V of each of the 26 tables, or nothing before vocabularies are built.

    Example:
        >>> criteo_feature_spec().feature_names[0]
        'cat_1'
    """
    names = [f"cat_{i}" for i in range(1, NUM_CRITEO_CATEGORICAL + 1)]
    if vocabulary_sizes and len(vocabulary_sizes) != len(names):
        raise ValueError(
            f"criteo_feature_spec: {len(vocabulary_sizes)} vocabulary sizes for {len(names)} tables. "
            "Give one a table, or none."
        )
    return FeatureSpec(
        labels=("label",),
        dense=tuple(DenseColumn(name=f"int_{i}", transform="log1p") for i in range(1, NUM_CRITEO_DENSE + 1)),
        categorical=tuple(CategoricalColumn(name=name, encoding="hex") for name in names),
        vocabulary_sizes=dict(zip(names, vocabulary_sizes, strict=False)),
    )
