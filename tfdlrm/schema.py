"""FeatureSpec: the ordered labels, dense and categorical columns of a dataset. The order is a contract.

A dataset and every model trained on it carry the same `schema.yaml`; readers, layers and exported signatures
take their feature order from it and never from the order of a dict.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from tfdlrm import checks
from tfdlrm.checks import quoted, reject_unknown_keys
from tfdlrm.records import FrozenMapping, Reader, Record, each
from tfdlrm.schema_columns import (
    DEFAULT_BINS,
    DERIVED,
    TIME_IDS,
    CategoricalColumn,
    DenseColumn,
    Encoding,
    IdPolicy,
    RawCells,
    Transform,
)

__all__ = [
    "DEFAULT_BINS",
    "DERIVED",
    "TIME_IDS",
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

SCHEMA_FILE = "schema.yaml"
SCORE_COLUMNS = ("probability", "logit")  # of the file that predict writes, beside the keys
ROW_ID = "row_id"  # the key that every row has, in a file or by its number
OOV_ID = 0  # the row of unknown values, under `id_policy: oov`
NUM_CRITEO_DENSE = 13
NUM_CRITEO_CATEGORICAL = 26


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
        for column in self.categorical:
            self._check_source(column)
            if column.num_ids is not None and column.table not in self.vocabulary_sizes:
                sizes[column.table] = max(column.num_ids, sizes.get(column.table, 0))
            elif column.num_ids is not None and sizes[column.table] < column.num_ids:
                raise ValueError(
                    f"FeatureSpec: vocabulary_sizes gives table {quoted(column.table)} {sizes[column.table]} rows, and "
                    f"column {quoted(column.name)} needs {column.num_ids}. Raise it, or leave it out."
                )
        self._set(vocabulary_sizes=FrozenMapping(sizes))
        self._check_raw()

    def _check_source(self, derived: CategoricalColumn) -> None:
        """The raw cells of a column are read in one way."""
        is_number = derived.encoding == "bins"
        source = derived.raw_name
        if source in self.labels:
            raise ValueError(
                f"FeatureSpec: column {quoted(derived.name)} is made of {quoted(source)}, which is a label: it would "
                "tell the answer. Give another source."
            )
        others = [column for column in self.categorical if column.raw_name == source]
        wrong = [
            column for column in others if column.encoding not in DERIVED or (column.encoding == "bins") != is_number
        ]
        if derived.encoding in DERIVED and (wrong or (not is_number and source in (each.name for each in self.dense))):
            raise ValueError(
                f"FeatureSpec: column {quoted(derived.name)} takes {quoted(source)} for a "
                f"{'number' if is_number else 'time'}, and another column takes it for something else. Give one of "
                "them a column of its own."
            )

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
        features = [*(column.name for column in self.dense), *(column.raw_name for column in self.categorical)]
        return tuple(dict.fromkeys([*self.labels, *features, *weights, *keys]))

    @property
    def num_dense(self) -> int:
        """Width of the dense vector."""
        return len(self.dense)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the categorical columns, in order."""
        return tuple(column.name for column in self.categorical)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs of a model: the dense columns, then the categorical ones."""
        return (*(column.name for column in self.dense), *self.feature_names)

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
    return target if target.suffix in (".yaml", ".yml") or target.is_file() else target / SCHEMA_FILE


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
