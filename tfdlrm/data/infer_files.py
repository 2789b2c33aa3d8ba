"""The rows of a file that a schema is proposed from, before there is one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tfdlrm.checks import hint, nearest, quoted, shortened
from tfdlrm.data.infer import Proposal, propose
from tfdlrm.data.lines import TextFormat
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepare.config import first_source
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.raw_formats import TYPED_FORMATS, guess_format
from tfdlrm.data.sources import TextSource
from tfdlrm.data.tabular import split_line
from tfdlrm.data.typed import TypedSource

SAMPLE_ROWS = 100_000
_SEPARATOR_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def propose_for_file(
    path: str | os.PathLike[str],
    label: str,
    *,
    positive: str | None = None,
    header: bool | None = None,
    all_rows: bool = False,
) -> Proposal:
    """Propose a schema for a file.

    Args:
        path: CSV and the like, plain or compressed, with a header or without; Parquet or Arrow. Of a folder or a
            pattern, the first file.
        label: the column of labels: its name or, of a file without a header, its place, from 1.
        positive: which of its two values is label 1.
        header: whether the first line has names; None to tell by the label and the line.
        all_rows: look at every row, held together in memory, and not at the first 100,000.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such label, a label that has not two values, columns without names, no rows.

    Example:
        >>> print(propose_for_file("clicks.csv", "click").to_yaml())
    """
    file = first_source([path])
    found, _ = guess_format(file)
    if found in ("prepared", "movielens"):
        raise ValueError(f"{file}: {found} data has a schema of its own. Give a file of raw rows.")
    most = None if all_rows else SAMPLE_ROWS
    if found in TYPED_FORMATS:
        source = TypedSource(file, found)
        frame = _first_rows((each for _, each in source.frames()), most)
        header, said, bad = True, found.capitalize(), ""
    else:
        separator, names, header, label = _layout(file, label, header)
        form = TextFormat(separator=separator.encode(), columns=tuple(names), quote=b'"', has_header=header)
        quarantine = Quarantine("quarantine")
        frame = _first_rows((block.frame for block in TextSource(file, form, quarantine).blocks()), most)
        said = f"fields by {_SEPARATOR_NAMES[separator]}, " + ("a header line" if header else "no header line")
        bad = ""
        if quarantine.count:
            row = quarantine.examples[0]
            bad = f"{quarantine.count:,} rows are bad, the first in line {row.line}: {shortened(row.reason)}"
            if not frame.height:
                raise ValueError(f"{file}: no row to look at; {bad}. {row.fix}")
            said += f"; {bad}"
    is_whole = all_rows or frame.height < SAMPLE_ROWS
    of = f"{'all' if is_whole else 'the first'} {frame.height:,} rows of {quoted(file.name)[1:-1]}"
    notes = [f"Proposed from {of} ({said}). Change what you know better."]
    what = f"{file} ({bad})" if bad else str(file)
    proposal = propose(frame, label, positive=positive, header=header, notes=notes, what=what, is_whole=is_whole)
    return replace(proposal, has_bad_rows=proposal.has_bad_rows or bool(bad))


def _first_rows(frames: Iterator[pl.DataFrame], most: int | None) -> pl.DataFrame:
    taken: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        taken.append(frame if most is None else frame.head(most - rows))
        rows += taken[-1].height
        if rows == most:
            break
    return pl.concat(taken) if taken else pl.DataFrame()


def _layout(file: Path, label: str, header: bool | None) -> tuple[str, list[str], bool, str]:
    """Separator, columns, whether the first line is a header, and the name of the label."""
    splits = split_line(file)
    separator = max(splits, key=lambda each: len(splits[each]))
    fields = splits[separator]
    place = int(label.removeprefix("column_")) if label.removeprefix("column_").isdecimal() else None
    if label in fields and (place is None or _looks_like_names(fields)) and header is None:
        header = True
    if header and label in fields:
        pass
    elif place is None:
        other = (
            ""
            if nearest(label, fields)
            else f" Of a file without a header give the label's place: --label {len(fields)}."
        )
        raise ValueError(
            f"{file}: no column {quoted(label)} in the first line{hint(label, fields)} Its fields are "
            f"{shortened(', '.join(fields))}.{other}"
        )
    else:
        if not 1 <= place <= len(fields):
            raise ValueError(f"{file}: no field {place} in the first line, which has {len(fields)}.")
        if header is None:
            header = not label.startswith("column_") and _looks_like_names(fields)
        label = fields[place - 1] if header else f"column_{place}"
    names = fields if header else [f"column_{number}" for number in range(1, len(fields) + 1)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{file}: column {quoted(twice)} occurs twice in the header. Rename one.")
    return separator, names, header, label


def _looks_like_names(fields: list[str]) -> bool:
    """Whether no field is empty, or a number, or there twice: a first line of texts alone is taken for names."""
    numbers = pl.Series(fields).str.strip_chars().cast(pl.Float64, strict=False)
    return numbers.null_count() == len(fields) == len({field.strip() for field in fields if field.strip()})
