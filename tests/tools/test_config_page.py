"""docs/config.md has every key of every config class, and says what the classes say."""

from __future__ import annotations

from dataclasses import fields

from tfdlrm import config
from tfdlrm.records import Record
from tools.config_page import PAGE, SECTIONS, meanings, page


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python tools/config_page.py"


def test_every_key_has_a_meaning() -> None:
    for _, kind in SECTIONS:
        assert set(meanings(kind)) == {one.name for one in fields(kind)}, kind.__name__
    shown = {kind for _, kind in SECTIONS}
    classes = {value for value in vars(config).values() if isinstance(value, type) and issubclass(value, Record)}
    assert {kind.__name__ for kind in classes - shown} == {"ExperimentConfig"}
