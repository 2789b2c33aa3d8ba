"""YAML text to plain values and back, without YAML 1.1's traps.

A document may be of anyone: it is limited in length, in depth, and in what its aliases unfold to, before anything is
made of it.

Two things plain `yaml.safe_load` gets wrong for config files: a key given twice silently keeps the last, and
`1e-3` (no dot) is a string. Both are mended here, in reader and writer alike, so that what is written reads
back as the same value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tfdlrm.checks import quoted, shortened

MAX_CHARACTERS = 2**21
MAX_VALUES = 200_000  # each counted as often as an alias names it
MAX_DEPTH = 50

# YAML 1.2 floats, which include an exponent without a dot (YAML 1.1 wants 1.0e-3).
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9]*\.[0-9]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+[eE][-+]?[0-9]+
    |[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that indents nested lists under their key, so that files are easy to edit by hand."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True  # a value used twice is written twice: anchors are noise in a config


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {quoted(key_node.value)} is given twice; remove one", key_node.start_mark
            )
        if isinstance(key_node.value, str):
            seen.add(key_node.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def dump_yaml(plain: Mapping[str, Any]) -> str:
    """YAML in the order of the keys, innermost lists and mappings on one line."""
    text: str = yaml.dump(
        plain, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )
    return text


def dump_item(value: Any) -> str:
    """One item of a list in block form, for a writer that puts comments between them.

    Example:
        >>> dump_item({"name": "no", "size": 1e-3})
        "{name: 'no', size: 0.001}"
    """
    text: str = yaml.dump(
        [value], Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=2**20, allow_unicode=True
    )
    # an empty line in a quoted text stands for a line end
    return text.strip().removeprefix("[").removesuffix("]").replace("\n", "\n    ")


def parse_yaml(text: str, source: str) -> Any:
    """Plain values of one YAML document.

    Args:
        text: the document.
        source: the file or flag it came from, for the error.

    Raises:
        ValueError: a syntax error or a key given twice, with source, line and column; or more than `MAX_CHARACTERS`,
            `MAX_VALUES` or `MAX_DEPTH`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{source}: {len(text):,} characters of YAML. At most {MAX_CHARACTERS:,} are read.")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_what_unfolds(node, source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        # not its own text: that quotes the whole line
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{source}: not valid YAML: {shortened(what)}{_place(error)}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {shortened(str(error))}") from error
    except RecursionError as error:
        raise ValueError(f"{source}: lists and mappings in each other more than {MAX_DEPTH} deep.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


def _refuse_what_unfolds(document: yaml.Node, source: str) -> None:
    """Counts the values of a document with its aliases unfolded, each node's once: a few hundred bytes can name 10^8.

    Raises:
        ValueError: there are too many, too deep in each other, or without an end.
    """
    sizes: dict[int, int | None] = {}  # None: being counted, so that to meet it again is a circle
    depths: dict[int, int] = {}
    waiting: list[tuple[yaml.Node, bool]] = [(document, False)]
    while waiting:
        node, are_parts_counted = waiting.pop()
        parts = _parts(node)
        if are_parts_counted:
            sizes[id(node)] = 1 + sum(sizes[id(part)] or 0 for part in parts)
            depths[id(node)] = 1 + max((depths[id(part)] for part in parts), default=0)
            if depths[id(node)] > MAX_DEPTH:
                raise ValueError(f"{source}: lists and mappings in each other more than {MAX_DEPTH} deep.")
            if (sizes[id(node)] or 0) > MAX_VALUES:
                raise ValueError(f"{source}: more than {MAX_VALUES:,} values, aliases unfolded. Write fewer.")
        elif id(node) not in sizes:
            sizes[id(node)] = None
            waiting.append((node, True))
            waiting.extend((part, False) for part in parts)
        elif sizes[id(node)] is None:
            raise ValueError(f"{source}: an alias names what it is in. Write the value itself.")


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
