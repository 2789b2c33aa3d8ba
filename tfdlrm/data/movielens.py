"""MovieLens-100k: GroupLens's `u.data`, `u.user`, `u.item`, or RecBole's atomic `.inter`, `.user`, `.item` files.

The protocol: all ratings in order of time; the label is rating >= 4. Dense: ln(age + 1) and release year,
standardized. Categorical: user, item, gender, occupation, zip code, hour of day, and the genres as a bag. Unseen
values go to an out-of-vocabulary row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.chunks import check_readable_file
from tfdlrm.data.lines import TextFormat
from tfdlrm.data.movielens_columns import GENRES
from tfdlrm.data.parse import FrameBlock, row_as_text
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.quarantine import Problems, Quarantine
from tfdlrm.data.sources import TextSource

# GroupLens's files have no header, so these are their columns in order; atomic files name theirs.
_GROUPLENS_COLUMNS = {
    "inter": ("user_id", "item_id", "rating", "timestamp"),
    "user": ("user_id", "age", "gender", "occupation", "zip_code"),
    "item": ("item_id", "title", "release_date", "video_release_date", "url", *GENRES),
}
_ATOMIC_COLUMNS = {
    "inter": ("user_id", "item_id", "rating", "timestamp"),
    "user": ("user_id", "age", "gender", "occupation", "zip_code"),
    "item": ("item_id", "movie_title", "release_year", "class"),
}


class MovieLensSource:
    """Ratings joined with users and items, in order of time; derived columns are those of the protocol.

    A bad rating goes to the quarantine; `u.user` and `u.item` hold no rows of the dataset, so an error in them is
    always raised.

    Args:
        directory: holds the three files of either form.
        quarantine: where bad ratings go.

    Raises:
        FileNotFoundError: a file is missing.
    """

    def __init__(self, directory: str | os.PathLike[str], quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._files, self._atomic = _find_files(Path(directory))
        self.file = str(self._files["inter"])
        self.rows_read = 0

    def blocks(self) -> Iterator[FrameBlock]:
        """See `RowSource`. One block: order of time needs all of them."""
        users = self._users()
        items = self._items()
        ratings, source = self._table("inter", self._quarantine)
        self.rows_read = source.rows_read
        joined = ratings.join(users, on="user_id", how="left", maintain_order="left")
        joined = joined.join(items, on="item_id", how="left", maintain_order="left")
        joined = joined.with_columns(
            pl.col("rating").str.strip_chars().cast(pl.Float64, strict=False).alias("rating_number"),
            pl.col("timestamp").str.strip_chars().cast(pl.Float64, strict=False).alias("seconds"),
        )
        good = joined.filter(pl.Series(~self._set_bad_aside(joined))).sort("seconds", maintain_order=True)
        frame = good.with_columns(
            (pl.col("rating_number") >= 4).cast(pl.Int8).alias("label"),
            pl.col("age").log1p().alias("log1p_age"),
            (pl.col("seconds") // 3600 % 24).cast(pl.Int64).alias("hour"),
        )
        columns = _ATOMIC_COLUMNS["inter"]
        yield FrameBlock(
            load=lambda: frame,
            lines=frame["line"].to_numpy(),
            numbers=frame["number"].to_numpy(),
            raw=lambda row: row_as_text(frame.select(columns), row),
        )

    def raw_rows(self, lines: Sequence[int]) -> dict[int, bytes]:
        """See `RowSource`."""
        return self._source("inter", Quarantine("quarantine")).raw_rows(lines)

    def _set_bad_aside(self, joined: pl.DataFrame) -> np.ndarray:
        problems = Problems(joined.height)

        def mark(condition: pl.Expr, column: str, reason: str, fix: str) -> None:
            problems.mark(joined.select(condition.fill_null(True)).to_series().to_numpy(), column, reason, fix)

        mark(~pl.col("rating_number").is_finite(), "rating", "not a number", "Give the rating, 1 to 5.")
        mark(~pl.col("seconds").is_finite(), "timestamp", "not a number", "Give seconds since 1970.")
        mark(pl.col("age").is_null(), "user_id", "no such user in the user file", "Add the user, or remove the rating.")
        mark(
            pl.col("genres").is_null(),
            "item_id",
            "no such item in the item file",
            "Add the item, or remove the rating.",
        )
        columns = _ATOMIC_COLUMNS["inter"]
        self._quarantine.add_all(
            problems.bad_rows(
                self.file,
                joined["line"].to_numpy(),
                lambda column, row: joined[column][row] or "",
                lambda row: row_as_text(joined.select(columns), row),
            )
        )
        return problems.bad

    def _users(self) -> pl.DataFrame:
        users, _ = self._table("user", Quarantine("error"))
        ages = users["age"].str.strip_chars().cast(pl.Float64, strict=False)
        wrong = ~(ages.is_finite().fill_null(False))
        if wrong.any():
            row = int(wrong.arg_true()[0])
            raise ValueError(
                f"{self._files['user']}, line {users['line'][row]}, column 'age': {quoted(users['age'][row])} is not a "
                "number. Correct the file, or get it again."
            )
        return users.drop("line", "number").with_columns(ages)

    def _items(self) -> pl.DataFrame:
        items, _ = self._table("item", Quarantine("error"))
        if self._atomic:
            year, genres = pl.col("release_year"), pl.col("class").fill_null("")
        else:
            # The title ends in the year, as in "Toy Story (1995)"; the date is the fallback.
            in_title = pl.col("title").str.extract(r"\((\d{4})\)[^)]*(?:\(V\))?\s*$")
            year = pl.coalesce(in_title, pl.col("release_date").str.extract(r"(\d{4})$"))
            flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
            genres = pl.concat_str(flags, separator=" ", ignore_nulls=True)
        # Some atomic files hold other words there ("V", of a video, and "unkonwn"): the year is then missing.
        return items.select(
            "item_id", year.cast(pl.Float64, strict=False).alias("release_year"), genres.alias("genres")
        )

    def _source(self, kind: str, quarantine: Quarantine) -> TextSource:
        names = (_ATOMIC_COLUMNS if self._atomic else _GROUPLENS_COLUMNS)[kind]
        separator = b"\t" if self._atomic or kind == "inter" else b"|"
        encoding = "utf-8" if self._atomic else "latin-1"
        form = TextFormat(separator=separator, columns=names, has_header=self._atomic, encoding=encoding)
        return TextSource(self._files[kind], form, quarantine)

    def _table(self, kind: str, quarantine: Quarantine) -> tuple[pl.DataFrame, TextSource]:
        source = self._source(kind, quarantine)
        frames = [
            block.frame.with_columns(pl.Series("line", block.lines), pl.Series("number", block.numbers))
            for block in source.blocks()
        ]
        if not frames:
            raise ValueError(f"{self._files[kind]}: no usable row. Get the file again.")
        table = pl.concat(frames)
        key = {"user": "user_id", "item": "item_id"}.get(kind)
        if key and table[key].is_duplicated().any():
            row = int(table[key].is_duplicated().arg_true()[1])
            raise ValueError(
                f"{source.file}, line {table['line'][row]}: {key} {quoted(table[key][row])} occurs twice. Remove one."
            )
        return table, source


def _find_files(directory: Path) -> tuple[dict[str, Path], bool]:
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory}: no such folder. Give the one that holds u.data, u.user and u.item, or the .inter, .user and "
            ".item files; without --data they are downloaded."
        )
    if (directory / "u.data").exists():
        names = {"inter": "u.data", "user": "u.user", "item": "u.item"}
        return {
            kind: check_readable_file(directory / name, f"MovieLens's {name}") for kind, name in names.items()
        }, False
    found: dict[str, Path] = {}
    for kind in ("inter", "user", "item"):
        matches = sorted(directory.glob(f"*.{kind}"))
        if len(matches) != 1:
            raise FileNotFoundError(
                f"{directory}: {len(matches)} files *.{kind} (and no u.data), where one is expected. Give the folder "
                "that holds u.data, u.user and u.item, or one .inter, one .user and one .item file."
            )
        found[kind] = check_readable_file(matches[0], f"an atomic .{kind} file")
    return found, True
