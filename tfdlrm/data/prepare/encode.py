"""Staged blocks as rows of the training format: one Arrow column a label, feature and key, as narrow as it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepare.fit import Fitted
from tfdlrm.data.prepare.parts import BAD, SAMPLED_OUT
from tfdlrm.data.prepare.stage import LINE, NUMBER, StagedRows, bags_of
from tfdlrm.data.prepare.token_ids import hashed_texts
from tfdlrm.data.prepared_folders import id_limit, key_column
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.quarantine import BadRow, Problems
from tfdlrm.data.synth.presets import DCNV2_HOTNESS
from tfdlrm.data.synth.rows import multi_hot
from tfdlrm.data.transforms import bin_ids, transform_dense
from tfdlrm.data.vocabulary import UNSEEN
from tfdlrm.schema import ROW_ID, CategoricalColumn, FeatureSpec

# ids [n] of one-hot column number i -> [n, H]
MultiHot = Callable[[int, np.ndarray], np.ndarray]


def narrow_type(spec: FeatureSpec, column: CategoricalColumn) -> np.dtype:
    """The smallest integer type of a column's ids."""
    limit = id_limit(spec, column)
    for dtype in (np.uint8, np.uint16, np.int32):
        if limit is not None and limit - 1 <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.int64)


class BlockEncoder:
    """Encodes staged blocks.

    Args:
        staged, fitted: the rows and what was learned from them.
        multi_hot: makes bags of single ids; None to keep them single.
    """

    def __init__(self, staged: StagedRows, fitted: Fitted, multi_hot: MultiHot | None = None) -> None:
        self._staged, self._fitted, self._spec = staged, fitted, fitted.spec
        self._multi_hot = multi_hot
        files = staged.file_of_block()
        before = np.cumsum([0, *(file.rows_read for file in staged.files)])
        self._first_number = [int(before[number]) for number in files]
        spec = self._spec
        self._names = [f"label/{name}" for name in spec.labels] + [f"dense/{column.name}" for column in spec.dense]
        self._names += [f"tokens/{column.name}" for column in spec.categorical if self._needs_tokens(column)]
        self._names += [f"weights/{column.name}" for column in spec.categorical if column.weights]
        self._names += [f"key/{name}" for name in spec.keys if name != ROW_ID]
        self._names.append(NUMBER if NUMBER in staged.names else f"key/{ROW_ID}")
        self._file = [staged.files[number].path for number in files]

    def mark_bad(self, codes: Sequence[np.ndarray]) -> dict[int, list[BadRow]]:
        """Marks rows whose ids turn out unknown only now as `BAD`, but for those that are sampled out.

        Args:
            codes: of every row, block by block, see `part_codes`.

        Returns:
            What is wrong with them, without their raw text, by number of their file.
        """
        found: dict[int, list[BadRow]] = {}
        for block, number in enumerate(self._staged.file_of_block()):
            for row, bad in self._bad_rows(block):
                if codes[block][row] != SAMPLED_OUT:
                    codes[block][row] = BAD
                    found.setdefault(number, []).append(bad)
        return found

    def _bad_rows(self, block: int) -> list[tuple[int, BadRow]]:
        """(row of the block, what is wrong), in order of the rows."""
        staged, rows = self._staged, int(self._staged.rows[block])
        problems = Problems(rows)
        for column in self._spec.categorical:
            if not self._may_miss(column):
                continue
            tokens = staged.column(block, f"tokens/{column.name}") if self._needs_tokens(column) else None
            ids = self._ids(column, block, tokens)
            if column.table in self._fitted.tables:
                wrong = ids == UNSEEN
                reason, fix = "the value was not seen in training", "Set id_policy: oov for the column and train again."
            else:
                size = self._spec.vocabulary_sizes[column.table]
                wrong = (ids < 0) | (ids >= size)
                reason = f"the id is not in [0, {size}), the rows of table {quoted(column.table)}"
                fix = "Correct it, raise vocabulary_sizes, or set id_policy: clip, modulo, oov or hash."
            if wrong.any():
                lengths = _lengths(column, tokens)
                of_token = np.arange(rows) if lengths is None else np.repeat(np.arange(rows), lengths)
                problems.mark(np.bincount(of_token[wrong], minlength=rows) > 0, column.name, reason, fix)
        if not problems.bad.any():
            return []
        lines = staged.column(block, LINE).to_numpy()
        hex_columns = {column.name for column in self._spec.categorical if column.encoding == "hex"}

        def cell(name: str, row: int) -> str:
            value = staged.column(block, f"tokens/{name}")[row].as_py()
            values = value if isinstance(value, list) else [value]
            is_hex = name in hex_columns
            return " ".join(f"{each:08x}" if is_hex else str(each) for each in values)

        row_of = {int(lines[row]): int(row) for row in np.flatnonzero(problems.bad)}
        bad = problems.bad_rows(self._file[block], lines, cell, lambda _row: b"")
        return sorted(((row_of[row.line], row) for row in bad), key=_place)

    def _may_miss(self, column: CategoricalColumn) -> bool:
        """Whether a token of the column may have no id."""
        if column.table in self._fitted.tables:
            return column.id_policy != "oov" and not self._fitted.tables[column.table].complete
        return column.encoding == "integer" and column.id_policy == "error"

    def table(self, block: int, rows: np.ndarray) -> pa.Table:
        """Some rows of a block in the training format.

        Args:
            block: its number.
            rows: bool [rows of the block].
        """
        spec, staged = self._spec, self._staged
        mask = None if rows.all() else pa.array(rows)
        found = staged.columns(block, self._names)
        columns: dict[str, pa.Array] = {}
        for name in spec.labels:
            columns[name] = found[f"label/{name}"]
        for dense in spec.dense:
            values = found[f"dense/{dense.name}"]
            if values.type == pa.float64():
                values = pa.array(transform_dense(dense, values.to_numpy()))
            columns[dense.name] = values
        for place, column in enumerate(spec.categorical):
            tokens = found.get(f"tokens/{column.name}")
            ids, lengths = self._ids(column, block, tokens), _lengths(column, tokens)
            if self._multi_hot is not None:
                bags = self._multi_hot(place, ids)
                ids, lengths = bags.reshape(-1), np.full(len(bags), bags.shape[1])
            narrow = pa.array(ids.astype(narrow_type(spec, column)))
            columns[column.name] = _bags(narrow, lengths, column)
            if column.weights:
                own = found[f"weights/{column.name}"]
                columns[column.weights] = _bags(own.values if lengths is not None else own, lengths, column)
        for name in spec.keys:
            if name != ROW_ID:
                columns[key_column(spec, name)] = found[f"key/{name}"].cast(staged.key_type(name))
        if NUMBER in found:
            columns[ROW_ID] = pa.array(found[NUMBER].to_numpy() + self._first_number[block])
        else:
            columns[ROW_ID] = found[f"key/{ROW_ID}"].cast(staged.key_type(ROW_ID))
        table = pa.table(columns)
        return table if mask is None else table.filter(mask)

    def _needs_tokens(self, column: CategoricalColumn) -> bool:
        """Whether ids or the lengths of bags come from the staged tokens."""
        return column.hotness != 1 or column.table not in self._fitted.tables

    def _ids(self, column: CategoricalColumn, block: int, tokens: pa.Array | None) -> np.ndarray:
        if column.table in self._fitted.tables:
            return self._fitted.ids(column, block)
        assert tokens is not None
        values = pl.Series(tokens.values if pa.types.is_large_list(tokens.type) else tokens)
        if column.encoding == "hash":
            return hashed_texts(values, self._spec.vocabulary_sizes[column.table])
        if column.encoding == "bins":
            return bin_ids(column, values.to_numpy())
        return values.cast(pl.Int64).to_numpy()


def _lengths(column: CategoricalColumn, tokens: pa.Array | None) -> np.ndarray | None:
    """int64, tokens a bag; None where every row has exactly one."""
    if column.hotness == 1 or tokens is None or not pa.types.is_large_list(tokens.type):
        return None
    return np.diff(tokens.offsets.to_numpy())


def _place(entry: tuple[int, BadRow]) -> int:
    return entry[0]


def _bags(values: pa.Array, lengths: np.ndarray | None, column: CategoricalColumn) -> pa.Array:
    if column.hotness == 1:
        return values
    if lengths is not None and column.hotness is not None:
        return pa.FixedSizeListArray.from_arrays(values, column.hotness)
    return bags_of(values, lengths)


def dcnv2_bags(spec: FeatureSpec, seed: int) -> tuple[FeatureSpec, MultiHot]:
    """The schema with DLRM-DCNv2's hotness, and the function that makes the bags.

    Raises:
        ValueError: the schema has not its 26 single ids.
    """
    if len(spec.categorical) != len(DCNV2_HOTNESS) or any(column.hotness != 1 for column in spec.categorical):
        raise ValueError(
            f"multi_hot='mlperf-dcnv2' needs {len(DCNV2_HOTNESS)} columns of one id each; the schema has "
            f"{len(spec.categorical)} columns. Remove it, or prepare Criteo rows."
        )
    columns = tuple(
        replace(column, hotness=hotness) for column, hotness in zip(spec.categorical, DCNV2_HOTNESS, strict=True)
    )
    sizes = [spec.vocabulary_sizes[column.table] for column in spec.categorical]

    def bags(place: int, ids: np.ndarray) -> np.ndarray:
        # rows that are left out may have no id
        return multi_hot(np.maximum(ids, 0), DCNV2_HOTNESS[place], sizes[place], table=place, seed=seed)

    return replace(spec, categorical=columns), bags
