"""Rows of one source prepared in memory, for the sources that training, evaluation and prediction read themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tfdlrm.data.columns import Columns
from tfdlrm.data.parse import RowParser
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.encode import BlockEncoder
from tfdlrm.data.prepare.fit import Fitter
from tfdlrm.data.prepare.parts import part_codes
from tfdlrm.data.prepare.stage import StagedFile, StagedRows, staged_table
from tfdlrm.data.prepared import PreparedRows
from tfdlrm.data.prepared_file import EncodedBlock
from tfdlrm.data.prepared_folders import PARTS
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.sources import RowSource, parse_block, report_late
from tfdlrm.schema import ROW_ID, FeatureSpec


@dataclass(frozen=True, kw_only=True)
class PreparedInMemory:
    """What became of the rows of a source.

    Args:
        parts: by name, those that have rows; `train` where there is no split.
        preprocessing: what encoded them.
        rows_read: good and bad ones.
    """

    parts: Mapping[str, Columns]
    preprocessing: Preprocessing
    rows_read: int


def prepare_in_memory(
    config: PrepareConfig,
    source: RowSource,
    spec: FeatureSpec,
    quarantine: Quarantine,
    *,
    given: Preprocessing | None = None,
    labelled: bool = True,
    empty_labels: bool = False,
    max_rows: int | None = None,
) -> PreparedInMemory:
    """What `prepare` makes of one source, without a file: the same passes in the same order.

    Args:
        config: the split, and how ids are made.
        source, spec: the rows.
        quarantine: the source's, which has the last word about bad rows.
        given: of the training rows, which encodes these as well; None to fit it.
        labelled: the label columns are there; otherwise labels are NaN.
        empty_labels: an empty cell is a NaN label, and no bad row.
        max_rows: keep the first so many good rows; the rest of their block is read and not counted, unless bad.

    Raises:
        BadRowError: a bad row, if the quarantine's mode is `error`.
        ValueError: there is no good row, none to train on, or a size that the rows cannot give.
    """
    parser = RowParser(spec, quarantine, id_modulo=config.id_modulo, with_labels=labelled, empty_labels=empty_labels)
    staged = _stage(source, parser, spec, max_rows)
    codes = part_codes(config, staged, spec.label)
    fitted = Fitter(config, spec, staged, codes, given=given).run()
    encoder = BlockEncoder(staged, fitted)
    for rows in encoder.mark_bad(codes).values():
        report_late(rows, source, quarantine)
    if not any((own < len(PARTS)).any() for own in codes):
        raise _no_row(source)
    parts = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for code, part in enumerate(PARTS):
            chosen = [(block, own == code) for block, own in enumerate(codes) if (own == code).any()]
            if chosen:
                tables = pool.map(lambda place: encoder.table(*place), chosen)
                blocks = [EncodedBlock(table, fitted.spec) for table in tables]
                parts[part] = PreparedRows(blocks, fitted.spec).read_all(pool)
    preprocessing = given or fitted.preprocessing(config.id_modulo)
    return PreparedInMemory(parts=parts, preprocessing=preprocessing, rows_read=staged.files[0].rows_read)


def _stage(source: RowSource, parser: RowParser, spec: FeatureSpec, max_rows: int | None) -> StagedRows:
    tables: dict[str, pa.Table] = {}
    num_rows = num_dropped = 0
    for block in source.blocks():
        rows = parse_block(parser, block, source)
        if max_rows is not None and num_rows + rows.num_rows > max_rows:
            num_dropped = num_rows + rows.num_rows - max_rows
            rows = rows.slice(0, max_rows - num_rows)
        if rows.num_rows:
            table = staged_table(rows, spec, numbered=ROW_ID not in block.frame.columns)
            tables[str(len(tables))] = table.combine_chunks()
            num_rows += rows.num_rows
        if num_rows == max_rows:
            break
    if not num_rows:
        raise _no_row(source)
    file = StagedFile(
        path=source.file,
        rows_read=source.rows_read - num_dropped,
        blocks=tuple(tables),
        rows=tuple(table.num_rows for table in tables.values()),
        bad=(),
    )
    return StagedRows(files=(file,), tables=tables)


def _no_row(source: RowSource) -> ValueError:
    aside = f"; all {source.rows_read} rows read were set aside" if source.rows_read else ""
    return ValueError(f"{source.file}: no usable row{aside}. Give at least one.")
