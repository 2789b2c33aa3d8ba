"""Pages that need no other file and no network."""

from __future__ import annotations

import base64
from typing import Any

from tfdlrm.pages.jinja2_extra import jinja2


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: a file of `templates/`. What it is given is text and never markup.
        values: what it names; one that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfdlrm.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["png_address"] = _png_address
    return environment.get_template(template).render(**values)


def _png_address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
