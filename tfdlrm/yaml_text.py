"""YAML text to plain values and back, without YAML 1.1's traps.

Two things plain `yaml.safe_load` gets wrong for config files: a key given twice silently keeps the last, and
`1e-3` (no dot) is a string. Both are mended here, in reader and writer alike, so that what is written reads
back as the same value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

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
                None, None, f"key {key_node.value!r} is given twice; remove one", key_node.start_mark
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


def parse_yaml(text: str, source: str) -> Any:
    """Plain values of one YAML document.

    Args:
        text: the document.
        source: the file or flag it came from, for the error.

    Raises:
        ValueError: a syntax error or a key given twice, with source, line and column.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {error}") from error
    finally:
        loader.dispose()
