"""CSV files of generated clicks: a label, two numbers, an id and a text column."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

HEADER = ("click", "age", "price", "user", "genre")
GENRES = ("drama", "comedy", "news", "sport")


def write_rows(folder: Path, num_rows: int, *, files: int = 2, seed: int = 0) -> Path:
    """Writes `num_rows` rows in so many files, and gives the folder back."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(files):
        with (folder / f"rows-{number}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            for _ in range(num_rows // files):
                user, genre = int(random.integers(0, 100)), int(random.integers(0, len(GENRES)))
                click = int(random.random() < 0.1 + 0.2 * (user % 2) + 0.1 * genre)
                price = f"{random.random() * 10:.2f}" if random.random() < 0.9 else ""
                writer.writerow([click, int(random.integers(18, 80)), price, user, GENRES[genre]])
    return folder
