"""Weight of the positives and negatives at each distinct score, for any number of rows in bounded memory.

Every rank metric (ROC AUC, average precision) is a sum over distinct scores in order, so it needs no more
than these counts. They are kept in one buffer. A full buffer is sorted and equal scores are added up; if that
does not free half of it, the buffer goes to disk as a sorted run. `FAN_IN` runs of a level are merged to one
run of the next level, and reading merges what is left. Nothing is binned or sampled, so what is computed from
the counts is exact.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from tfdlrm.metrics.checked_rows import check_rows

FAN_IN = 16  # runs merged at once: enough for one level up to 16 buffers of distinct scores
PEAK_BYTES_PER_ROW = 56  # 24 in the buffer, and what sorting it or merging beside it takes at worst
MINIMUM_MEMORY_BYTES = 2**16  # below, a run's share of a merge is a handful of rows
DEFAULT_MEMORY_BYTES = 2**28
_ROW_BYTES = 24  # score, positives, negatives
_FORMAT = "tfdlrm-score-counts-1"


class _Run(NamedTuple):
    """A file of (score, positives, negatives) rows, little-endian float64, scores ascending, distinct."""

    path: Path
    offset: int  # bytes before the first row

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        offset = self.offset
        while True:
            flat = np.fromfile(self.path, dtype="<f8", count=3 * rows, offset=offset)
            if not flat.size:
                return
            offset += flat.nbytes
            yield flat.reshape(-1, 3).T


class ScoreCounts:
    """Streaming (score, positives, negatives) in ascending order of score.

    Args:
        memory_bytes: limit of what is held and allocated beside the rows of a call, at least 64 KiB. The rest
            is on disk: at most 24 bytes a row, for a moment twice that.
        directory: where the temporary folder for sorted runs is made when one is needed; None for the
            system's. It is removed with the object.

    Attributes:
        num_rows: rows added.
        positives, negatives: total weight of each class; exact integers where no weights were given.

    Raises:
        ValueError: `memory_bytes` is too small.

    Example:
        >>> counts = ScoreCounts()
        >>> counts.add(labels=[1, 0, 1], scores=[0.5, 0.5, 2.0])
        >>> [block.T.tolist() for block in counts.blocks()]
        [[[0.5, 1.0, 1.0], [2.0, 1.0, 0.0]]]
    """

    def __init__(self, *, memory_bytes: int = DEFAULT_MEMORY_BYTES, directory: str | os.PathLike | None = None) -> None:
        if memory_bytes < MINIMUM_MEMORY_BYTES:
            raise ValueError(
                f"{type(self).__name__}: memory_bytes={memory_bytes} is too small. Give {MINIMUM_MEMORY_BYTES} or more."
            )
        self.memory_bytes = int(memory_bytes)
        self._directory = directory
        self._capacity = self.memory_bytes // PEAK_BYTES_PER_ROW
        self._block_rows = self._capacity // 8  # in flight while reading or merging, over all runs together
        self._buffer = np.empty((3, min(self._capacity, 2**12)))
        self._folder: Path | None = None
        self._remove_folder: weakref.finalize | None = None
        self._num_files = 0
        self.clear()

    def clear(self) -> None:
        """Forget every row and remove the temporary files."""
        self.num_rows = 0
        self.positives: float = 0
        self.negatives: float = 0
        self.weighted = False
        self._used = 0
        self._levels: list[list[_Run]] = []
        if self._remove_folder is not None:
            self._remove_folder()
        self._folder = self._remove_folder = None

    def add(self, labels: Any, scores: Any, weights: Any = None) -> None:
        """Add rows.

        Args:
            labels: `[N]` or `[N, 1]`, 0 or 1.
            scores: `[N]` or `[N, 1]`, larger for likelier positives; float64 and everything narrower is kept
                exactly.
            weights: `[N]` or `[N, 1]`, 0 or more; None for 1 a row.

        Raises:
            ValueError: a value or a shape is not valid; then no row of the call was added.
        """
        rows = check_rows(type(self).__name__, labels, scores, weights)
        weight = 1.0 if rows.weights is None else rows.weights
        positive, negative = rows.labels * weight, (1.0 - rows.labels) * weight
        self._count(len(rows.scores), positive.sum(), negative.sum(), weighted=rows.weights is not None)
        self._append(np.stack([rows.scores, positive, negative]))

    def merge(self, other: ScoreCounts) -> None:
        """Add the rows of `other`, which keeps them.

        Raises:
            ValueError: `other` is this very object.
        """
        if other is self:
            raise ValueError(f"{type(self).__name__}: merge() was given the object itself. Give another one.")
        self._count(other.num_rows, other.positives, other.negatives, weighted=other.weighted)
        for block in other.blocks():
            self._append(block)

    def between(self, edges: np.ndarray) -> np.ndarray:
        """Weight of the positives and of the negatives below, between and above some scores.

        Args:
            edges: `[n]`, ascending; a score that is one belongs to what is above.

        Returns:
            float64 `[2, n + 1]`.
        """
        found = np.zeros([2, len(edges) + 1])
        for scores, *weights in self.blocks():
            place = np.searchsorted(edges, scores, side="right")
            for row, weight in zip(found, weights, strict=True):
                row += np.bincount(place, weight, len(row))
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Distinct scores in ascending order, as `[3, n]` float64 blocks of (score, positives, negatives).

        Add no rows while reading.
        """
        self._compact()
        runs = [run for level in self._levels for run in level]
        if not runs:
            yield from self._buffer_blocks(self._block_rows)
            return
        yield from self._merged(runs, with_buffer=True)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one file, atomically; at most 24 bytes a distinct score."""
        path = Path(path)
        header = {
            "format": _FORMAT,
            "num_rows": self.num_rows,
            "positives": self.positives,
            "negatives": self.negatives,
            "weighted": self.weighted,
        }
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for block in self.blocks():
                _write(file, block)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike, **options: Any) -> Self:
        """Inverse of `save`; `options` are those of the constructor.

        Raises:
            ValueError: the file is of another kind, or cut short.
        """
        with open(path, "rb") as file:
            first_line = file.readline(4096)
        try:
            header = json.loads(first_line)
            known = header["format"] == _FORMAT
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise ValueError(f"{os.fspath(path)}: not a file that {cls.__name__}.save wrote.")
        expected = [header["positives"], header["negatives"]]
        counts, found = cls(**options), np.zeros(2)
        if (os.path.getsize(path) - len(first_line)) % _ROW_BYTES == 0:
            for block in _Run(Path(path), len(first_line)).blocks(counts._block_rows):
                counts._append(block)
                found += block[1:].sum(axis=1)
        if not np.allclose(found, expected, rtol=1e-9, atol=0):
            raise ValueError(
                f"{os.fspath(path)}: the rows are not the {expected} positives and negatives of its header. "
                "The file was cut short or changed; write it again."
            )
        counts._count(header["num_rows"], *expected, weighted=header["weighted"])
        return counts

    def _count(self, num_rows: int, positives: float, negatives: float, *, weighted: bool) -> None:
        self.num_rows += num_rows
        self.weighted = self.weighted or weighted
        # Python integers: a float64 total loses single rows past 2^53
        exact = float if self.weighted else int
        self.positives = exact(self.positives) + exact(positives)
        self.negatives = exact(self.negatives) + exact(negatives)

    def _append(self, rows: np.ndarray) -> None:
        start = 0
        while start < rows.shape[1]:
            room = self._buffer.shape[1] - self._used
            if not room:
                self._make_room()
                continue
            piece = rows[:, start : start + room]
            self._buffer[:, self._used : self._used + piece.shape[1]] = piece
            self._used += piece.shape[1]
            start += piece.shape[1]

    def _make_room(self) -> None:
        size = self._buffer.shape[1]
        if size < self._capacity:
            larger = np.empty((3, min(self._capacity, 2 * size)))
            larger[:, : self._used] = self._buffer[:, : self._used]
            self._buffer = larger
            return
        self._compact()
        if self._used > self._capacity // 2:
            self._store(self._buffer_blocks(self._block_rows), level=0)
            self._used = 0

    def _compact(self) -> None:
        """Sort the buffer and add up equal scores, in place, column by column to keep the peak low."""
        used = self._buffer[:, : self._used]
        scores = used[0]
        if self._used < 2 or (scores[1:] > scores[:-1]).all():
            return
        order = np.argsort(scores)
        for column in used:
            column[:] = column[order]
        del order
        starts = _starts_of_equal(scores)
        for column in used[1:]:
            column[: len(starts)] = np.add.reduceat(column, starts)
        scores[: len(starts)] = scores[starts]
        self._used = len(starts)

    def _store(self, blocks: Iterator[np.ndarray], level: int) -> None:
        """Write a sorted run, and merge its level once that has FAN_IN of them."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="tfdlrm-scores-", dir=self._directory))
            self._remove_folder = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._num_files += 1
        run = _Run(self._folder / f"{self._num_files}.run", 0)
        with run.path.open("wb") as file:
            for block in blocks:
                _write(file, block)
        while len(self._levels) <= level:
            self._levels.append([])
        self._levels[level].append(run)
        if len(self._levels[level]) >= FAN_IN:
            runs, self._levels[level] = self._levels[level], []
            self._store(self._merged(runs, with_buffer=False), level + 1)
            for run in runs:
                run.path.unlink()

    def _buffer_blocks(self, rows: int) -> Iterator[np.ndarray]:
        for start in range(0, self._used, rows):
            yield self._buffer[:, start : min(start + rows, self._used)]

    def _merged(self, runs: list[_Run], *, with_buffer: bool) -> Iterator[np.ndarray]:
        share = max(1, self._block_rows // (len(runs) + 1))
        sources = [run.blocks(share) for run in runs]
        if with_buffer:
            sources.append(self._buffer_blocks(share))
        return merge_sorted(sources)


def merge_sorted(sources: list[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Merge ascending streams of `[3, n]` blocks, adding up equal scores; each stream has distinct scores."""
    heads = [(head, source) for source in sources if (head := next(source, None)) is not None]
    while heads:
        # no stream holds anything up to this score beyond its head, so everything up to it can go out
        bound = min(head[0, -1] for head, _ in heads)
        out, kept = [], []
        for head, source in heads:
            cut = int(np.searchsorted(head[0], bound, side="right"))
            out.append(head[:, :cut])
            rest = head[:, cut:] if cut < head.shape[1] else next(source, None)
            if rest is not None:
                kept.append((rest, source))
        heads = kept
        joined = np.concatenate(out, axis=1)
        joined = joined[:, np.argsort(joined[0])]
        starts = _starts_of_equal(joined[0])
        yield np.stack([joined[0][starts], *(np.add.reduceat(column, starts) for column in joined[1:])])


def _starts_of_equal(ascending: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))


def _write(file: Any, block: np.ndarray) -> None:
    file.write(np.ascontiguousarray(block.T, dtype="<f8").data)
