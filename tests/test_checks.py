"""Messages quote what they were given, at bounded length and cost; YAML is limited before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfdlrm.checks import LONGEST_QUOTE, quoted
from tfdlrm.config import ExperimentConfig
from tfdlrm.schema import FeatureSpec
from tfdlrm.yaml_text import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, parse_yaml


def values_of(text: st.SearchStrategy[str], binary: st.SearchStrategy[bytes]) -> st.SearchStrategy[object]:
    return st.recursive(
        st.none() | st.booleans() | st.integers(-(2**700), 2**700) | st.floats() | text | binary,
        lambda inner: (
            st.lists(inner)
            | st.lists(inner).map(tuple)
            | st.dictionaries(text, inner)
            | st.sets(st.integers())
            | st.frozensets(text)
        ),
    )


def begins(value: object) -> tuple[str, str]:
    """`repr` of a value and, without the sign that there is more, its quote."""
    whole, found = repr(value), quoted(value)
    if len(whole) <= LONGEST_QUOTE:
        assert found == whole
        return whole, found
    assert found.endswith("…")
    assert len(found) == LONGEST_QUOTE + 1
    return whole, found[:-1]


@given(
    values_of(st.text(st.characters(exclude_characters="'")), st.binary().map(lambda each: each.replace(b"'", b'"')))
)
def test_a_quote_is_the_beginning_of_repr(value: object) -> None:
    whole, found = begins(value)
    assert whole.startswith(found)


@given(values_of(st.text(), st.binary()))
@example([["0" * 170 + "'"], ["000'", '0"' * 100]])
@example({"k" * 190: "000'"})
@example(["x" * 190, b"000000000'"])
def test_the_marks_around_a_string_that_is_cut_are_those_of_its_shown_part(value: object) -> None:
    """`repr` takes marks that the string does not hold, and what follows is not looked at."""
    whole, found = (text.translate(dict.fromkeys(map(ord, "'\"\\"))) for text in begins(value))
    assert whole.startswith(found)


def unfolding(levels: int) -> object:
    value: object = ["x"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**7,
        b"x" * 10**7,
        [["a" * 10**6] * 1000] * 1000,
        {"k" * 10**6: "v" * 10**6},
        unfolding(100),
        pytest.param(10**100_000, id="a large integer"),
        pytest.param(-(10**100_000), id="a small integer"),
        list(range(10**6)),
    ],
)
def test_quoting_takes_no_longer_than_what_is_shown(value: object) -> None:
    text = quoted(value)
    assert LONGEST_QUOTE < len(text) <= LONGEST_QUOTE + 1 or text == "an integer of 332193 bits"


def bomb(levels: int) -> str:
    """500 bytes whose aliases unfold to 10^levels values."""
    parts = ["&a0 [x,x,x,x,x,x,x,x,x,x]"]
    parts += [f"&a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return f"[[{', '.join(parts)}]]"


def merging(levels: int) -> str:
    parts = ["&m0 {x: 1}"] + [f"&m{i} {{<<: [{','.join([f'*m{i - 1}'] * 10)}]}}" for i in range(1, levels)]
    return f"[{', '.join(parts)}]"


@pytest.mark.parametrize("text", [bomb(8), bomb(30), merging(8), merging(30)])
@pytest.mark.parametrize("key", ["labels", "model"])
def test_aliases_that_unfold_are_refused_before_they_do(key: str, text: str) -> None:
    reader = FeatureSpec if key == "labels" else ExperimentConfig
    with pytest.raises(ValueError, match=rf"f\.yaml: more than {MAX_VALUES:,} values, aliases unfolded") as raised:
        reader.from_yaml(f"{key}: {text}\n", "f.yaml")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("&a [*a]", "an alias names what it is in. Write the value itself"),
        ("&a {x: [*a]}", "an alias names what it is in"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} deep"),
        ("[" * 100_000, f"more than {MAX_DEPTH} deep"),
        ("x" * (MAX_CHARACTERS + 1), f"2,097,153 characters of YAML. At most {MAX_CHARACTERS:,} are read"),
        ("a: [1, 2", "not valid YAML: while parsing a flow sequence"),
        ("a: " + "b" * 10_000 + ": c", "not valid YAML: mapping values are not allowed here, line 1"),
        (f"{'k' * 900}: 1\n{'k' * 900}: 2", "not valid YAML: key 'kkk"),
        ("a: !!python/object:os.system [x]", "could not determine a constructor"),
        ("a: \0", "not valid YAML"),
    ],
)
def test_yaml_that_is_refused_is_quoted_shortly(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^f\.yaml: ") as raised:
        parse_yaml(text, "f.yaml")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_aliases_and_merges_of_a_usual_size() -> None:
    text = "base: &b {a: 1, b: [x, y]}\nmore: {<<: *b, c: 3}\nsame: *b\n"
    found = parse_yaml(text, "f.yaml")
    assert found["more"] == {"a": 1, "b": ["x", "y"], "c": 3}
    assert found["same"] == found["base"]
    assert parse_yaml("", "f.yaml") is None
    assert parse_yaml("null", "f.yaml") is None


def test_a_large_schema_is_read(tmp_path: Path) -> None:
    columns = "".join(f"  - {{name: column_{i}, encoding: integer}}\n" for i in range(2_000))
    sizes = ", ".join(f"column_{i}: {i + 1}" for i in range(2_000))
    spec = FeatureSpec.from_yaml(f"labels: [y]\ncategorical:\n{columns}vocabulary_sizes: {{{sizes}}}\n")
    assert len(spec.categorical) == 2_000
