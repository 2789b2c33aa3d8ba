"""Pages read back: whether tags match, what they say, which pictures they hold, and whether they need anything else."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

from PIL import Image

_VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects images, text, and tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.rows = 0
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.images.append(given["src"] or "")
        if tag == "tr":
            self.rows += 1
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[Image.Image]:
        return [read_png(base64.b64decode(source.partition(",")[2])) for source in self.images]


def read_page(html: str) -> Page:
    """A page whose tags match, and that asks for nothing outside of itself."""
    page = Page()
    page.feed(html)
    page.close()
    assert page._open == []
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    return page


def read_png(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image


def assert_drawn(image: Image.Image) -> None:
    """More than a blank sheet."""
    assert min(image.size) > 200
    assert len(image.convert("RGB").getcolors(2**24) or []) > 20
