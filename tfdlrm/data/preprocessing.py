"""Preprocessing: what was learned from the training part, so that any later file is encoded the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from tfdlrm.checks import (
    check_flag,
    check_integer,
    check_mapping,
    check_optional,
    check_text,
    quoted,
    reject_unknown_keys,
)
from tfdlrm.data.prepared_folders import read_schema
from tfdlrm.files import path_inside, read_text
from tfdlrm.schema import CategoricalColumn, FeatureSpec
from tfdlrm.yaml_text import dump_yaml, parse_yaml

if TYPE_CHECKING:
    from tfdlrm.data.vocabulary import Vocabulary

PREPROCESSING_FILE = "preprocessing.yaml"
PREPROCESSING_DIRECTORY = "preprocessing"  # of a training run
VOCABULARY_DIRECTORY = "vocabularies"

WITH_VOCABULARY = ("vocabulary", "hex")  # encodings


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A schema whose numbers are all known, and the vocabularies of its tables.

    Args:
        spec: the columns, with fitted mean and std and with the size of every table.
        vocabularies: by table, for tables of encoding `vocabulary` or `hex`.
        id_modulo: of integer and hex ids; None for no modulo.

    Example:
        >>> preprocessing.save("model/preprocessing")
        >>> Preprocessing.load("model/preprocessing").spec == preprocessing.spec
        True
    """

    spec: FeatureSpec
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    id_modulo: int | None = None

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `schema.yaml`, `preprocessing.yaml` and `vocabularies/<table>.txt`: plain text, one value a line."""
        directory = Path(directory)
        for table, vocabulary in self.vocabularies.items():
            file = vocabulary_file(directory, table)
            file.parent.mkdir(parents=True, exist_ok=True)
            vocabulary.save(file)
        tables = {table: (len(each.values), each.has_oov) for table, each in self.vocabularies.items()}
        save_description(directory, self.spec, tables, self.id_modulo)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Preprocessing:
        """Read what `save` wrote.

        Args:
            directory: of it, or of the training run that it belongs to.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file was changed so that it no longer fits; the message names it.
        """
        folder = Path(directory)
        of_run = folder / PREPROCESSING_DIRECTORY
        if not (folder / PREPROCESSING_FILE).is_file() and (of_run / PREPROCESSING_FILE).is_file():
            folder = of_run
        spec, id_modulo, entries = read_description(folder)
        vocabularies: dict[str, Vocabulary] = {}
        for table, entry in entries.items():
            from tfdlrm.data.vocabulary import Vocabulary

            encodings = {column.encoding for column in spec.categorical if column.table == table}
            encoding = "hex" if "hex" in encodings else "vocabulary"
            vocabulary = Vocabulary.load(entry.file, encoding=encoding, has_oov=entry.has_oov)
            if len(vocabulary.values) != entry.values:
                raise ValueError(
                    f"{entry.file}: {len(vocabulary.values)} values where {entry.values} were saved. "
                    "Lines were added or removed; restore the file: ids are line numbers."
                )
            vocabularies[table] = vocabulary
        return cls(spec=spec, vocabularies=vocabularies, id_modulo=id_modulo)


class VocabularyEntry(NamedTuple):
    """A table's vocabulary by `preprocessing.yaml`: its file, how many values, and whether row 0 is for others."""

    file: Path
    values: int
    has_oov: bool


def read_description(directory: Path) -> tuple[FeatureSpec, int | None, dict[str, VocabularyEntry]]:
    """What `save_description` wrote: the schema, id_modulo, and the vocabularies by table; none of them is opened.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not fit the schema, or names a file that is not in the folder.
    """
    file = directory / PREPROCESSING_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no preprocessing there. Give the folder that a training run wrote.")
    spec = read_schema(directory)
    owner, plain = str(file), parse_yaml(read_text(file), str(file))
    check_mapping(owner, "the document", plain)
    reject_unknown_keys(owner, plain, ("id_modulo", "vocabularies"))
    entries = plain.get("vocabularies")
    check_mapping(owner, "vocabularies", entries)
    for table, entry in entries.items():
        if table not in spec.vocabulary_sizes:
            raise ValueError(f"{owner}: vocabularies has {quoted(table)}, which is no table of the schema. Remove it.")
        place = f"{owner}: vocabularies, {quoted(table)}"
        check_mapping(place, "the entry", entry)
        reject_unknown_keys(place, entry, ("file", "values", "has_oov"))
        check_text(place, "file", entry.get("file"))
        check_integer(place, "values", entry.get("values"), minimum=0)
        check_flag(place, "has_oov", entry.get("has_oov"))
    found = {
        table: VocabularyEntry(path_inside(directory, entry["file"]), entry["values"], entry["has_oov"])
        for table, entry in entries.items()
    }
    return spec, check_optional(check_integer, owner, "id_modulo", plain.get("id_modulo"), minimum=1), found


def vocabulary_file(directory: Path, table: str) -> Path:
    """Where the vocabulary of a table is kept: table names may hold any character, a slash included."""
    return directory / VOCABULARY_DIRECTORY / f"{quote(table, safe=' ')}.txt"


def save_description(
    directory: Path, spec: FeatureSpec, tables: Mapping[str, tuple[int, bool]], id_modulo: int | None
) -> None:
    """Write `schema.yaml` and `preprocessing.yaml`, for vocabularies that are files already.

    Args:
        directory: of the files.
        spec: the columns.
        tables: number of values and whether there is an out-of-vocabulary row, by table with a vocabulary.
        id_modulo: of integer and hex ids.
    """
    spec.save(directory)
    entries = {
        table: {
            "file": vocabulary_file(directory, table).relative_to(directory).as_posix(),
            "values": values,
            "has_oov": has_oov,
        }
        for table, (values, has_oov) in tables.items()
    }
    plain = {"id_modulo": id_modulo, "vocabularies": entries}
    (directory / PREPROCESSING_FILE).write_text(dump_yaml(plain), encoding="utf-8")


def needs_edges(column: CategoricalColumn) -> bool:
    """Whether a column's bins are still to be fitted."""
    return column.encoding == "bins" and column.edges is None


def has_vocabulary(table: str, columns: Sequence[CategoricalColumn]) -> bool:
    """Whether a table's ids come from a vocabulary; its columns must agree on that."""
    encodings = {column.encoding for column in columns}
    with_vocabulary = encodings & set(WITH_VOCABULARY)
    if with_vocabulary and len(encodings) > 1:
        names = ", ".join(f"{column.name} ({column.encoding})" for column in columns)
        raise ValueError(
            f"table {quoted(table)} is shared by columns of different encodings: {names}. Give all the same one."
        )
    return bool(with_vocabulary)


def check_size(table: str, size: int, needed: int) -> None:
    """Refuse a table that is smaller than its vocabulary."""
    if size < needed:
        raise ValueError(
            f"table {quoted(table)}: vocabulary_sizes gives {size} rows, and the training part needs {needed}. "
            f"Raise it to {needed}, or leave it out to have it counted."
        )


def needs_size(table: str, columns: Sequence[CategoricalColumn]) -> None:
    """Refuse a table without a size whose rows do not tell it."""
    for column in columns:
        if column.encoding == "hash" or column.id_policy in ("modulo", "hash"):
            raise ValueError(
                f"table {quoted(table)}: column {quoted(column.name)} (encoding {quoted(column.encoding)}, id_policy "
                f"{quoted(column.id_policy)}) does not tell how many rows it needs. Give "
                f"vocabulary_sizes: {{{table}: N}}."
            )
