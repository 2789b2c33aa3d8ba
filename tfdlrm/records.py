"""Frozen records: the one form of every schema and config class, in Python and as a plain dict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self, TypeVar

from tfdlrm.checks import quoted, reject_unknown_keys
from tfdlrm.files import read_text
from tfdlrm.yaml_text import dump_yaml, parse_yaml

Value = TypeVar("Value")
Reader = Callable[[Any], Any]


class FrozenMapping(Mapping[str, Value]):
    """A read-only mapping in its order, which hashes, copies and pickles (MappingProxyType does not)."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Value] | Iterable[tuple[str, Value]] = ()) -> None:
        self._items: dict[str, Value] = dict(items)

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of the frozen config dataclasses: a plain-dict form, both ways, that refuses unknown keys.

    A subclass states in `readers` how a field that is more than a scalar is read from its plain form, and in
    `writers` how it is written where `to_dict` of the value itself is not the answer.
    """

    readers: ClassVar[Mapping[str, Reader]] = {}
    writers: ClassVar[Mapping[str, Reader]] = {}

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The fields, in order: the valid keys of the plain form."""
        return tuple(field.name for field in fields(cls))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what YAML and JSON can hold. Every field is written."""
        return {name: self.writers.get(name, to_plain)(getattr(self, name)) for name in self.field_names()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; fields left out take their defaults.

        Raises:
            ValueError: not a mapping, an unknown key, a missing one, or a value its field refuses.
        """
        if not isinstance(given, Mapping):
            raise ValueError(
                f"{cls.__name__}: got {quoted(given)}, a {type(given).__name__}. "
                f"Give a mapping with keys among: {', '.join(cls.field_names())}."
            )
        reject_unknown_keys(cls.__name__, given, cls.field_names())
        for field in fields(cls):
            required = field.default is MISSING and field.default_factory is MISSING
            if required and field.name not in given:
                raise ValueError(
                    f"{cls.__name__}: key {quoted(field.name)} is missing. Given: {', '.join(given) or 'none'}."
                )
        return cls(**{name: cls.readers.get(name, _as_is)(value) for name, value in given.items()})

    def to_yaml(self) -> str:
        """The plain form as YAML, defaults included: a later change of a default does not change what is written."""
        return dump_yaml(self.to_dict())

    @classmethod
    def from_yaml(cls, text: str, source: str = "config") -> Self:
        """Inverse of `to_yaml`.

        Args:
            text: YAML.
            source: what the text is, for errors.

        Raises:
            ValueError: not YAML, or not a valid record; the message names source and key.
        """
        plain: Any = parse_yaml(text, source)
        try:
            return cls.from_dict(plain)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """The record of a YAML file.

        Raises:
            FileNotFoundError, PermissionError: as of `open`.
            ValueError: not YAML, or not a valid record; the message names file and key.
        """
        return cls.from_yaml(read_text(path), source=os.fspath(path))

    def _set(self, **values: Any) -> None:
        """Store normalised values from `__post_init__`; the only place a frozen record is written."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _as_is(value: Any) -> Any:
    return value


def to_plain(value: Any) -> Any:
    """Records to dicts, tuples to lists, mappings to dicts; scalars as they are."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def each(reader: Reader) -> Reader:
    """Apply `reader` to every item of a list; what is not one is left for the field's own check to refuse."""

    def read(value: Any) -> Any:
        return tuple(reader(item) for item in value) if isinstance(value, (list, tuple)) else value

    return read


def optional(reader: Reader) -> Reader:
    """Apply `reader` unless the value is None."""
    return lambda value: None if value is None else reader(value)
