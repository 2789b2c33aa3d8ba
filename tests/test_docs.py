"""Every Python block of the README and of docs/ runs; blocks of one page share their names, in order."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from savedmodels.serve_once import serve_once
from tfdlrm.cli import main

ROOT = Path(__file__).parents[1]
WITH_COMMANDS = "your_data.md"  # its Python needs what its commands write
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line of the first statement, source) of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found.group(1)) for found in BLOCK.finditer(text)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.name != WITH_COMMANDS], ids=lambda page: page.name
)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for line, source in blocks(page):
        # line numbers of a failure are those of the page
        exec(compile("\n" * line + source, str(page), "exec"), names)  # noqa: S102


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / WITH_COMMANDS], ids=lambda page: page.name)
def test_from_a_file_to_an_answer(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's commands, each as it stands there; the server is a fresh process that answers the request."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    first, second = blocks(page)[:2]
    exec(compile(first[1], str(page), "exec"), {"__name__": "clicks"})  # noqa: S102
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    served = 0
    for command in commands:
        program, *words = shlex.split(command, comments=True)
        if program == "curl":
            assert words[0] == "localhost:8501/v1/models/default:predict"
            answer = serve_once("exported/1", json.loads(words[2])["inputs"])
            assert 0.4 < answer["probability"][0][0] < 1.0
            served += 1
            continue
        assert program == "tfdlrm"
        if words[0] == "serve":
            continue  # `serve_once` stands for it
        target = Path(words[words.index(">") + 1]) if ">" in words else None
        assert main([word for word in words if target is None or word not in (">", target.name)]) == 0
        said = capsys.readouterr().out
        if target is not None:
            target.write_text(said)
    assert served == 1
    if page.name == WITH_COMMANDS:
        proposed = re.search(r"^```yaml\n(.*?)^```", text, re.M | re.S)
        assert proposed is not None
        assert proposed[1] == Path("schema.yaml").read_text()
        assert len(Path("scores.csv").read_text().splitlines()) == 20_001
        exec(compile(second[1], str(page), "exec"), {"__name__": "clicks"})  # noqa: S102


def test_the_concepts_have_pages_with_code() -> None:
    with_code = {page.stem for page in PAGES if blocks(page)}
    assert {"README", "engine", "numerics", "schema"} <= with_code
