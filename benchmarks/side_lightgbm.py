"""LightGBM with its defaults on the rows of one file: run by `tabular.py`, in an environment that has it.

    python side_lightgbm.py FILE LABEL POSITIVE ROWS.npz     # prints one line of JSON

FILE has no header; LABEL is the place of the label, from 1; ROWS.npz has row numbers, `train` and `test`.
"""

from __future__ import annotations

import json
import sys
import time

import lightgbm
import numpy as np
import polars as pl
from sklearn.metrics import log_loss, roc_auc_score


def main() -> None:
    """Fits, scores, prints."""
    file, label, positive, rows = sys.argv[1:]
    frame = pl.read_csv(file, has_header=False, infer_schema_length=None, null_values=["?", " ?"])
    cells = frame.drop_in_place(frame.columns[int(label) - 1]).cast(pl.String).str.strip_chars()
    labels = (cells == positive).to_numpy().astype(int)
    texts = [place for place, kind in enumerate(frame.dtypes) if kind == pl.String]
    codes = [
        (cells.cast(pl.Categorical).to_physical() if cells.dtype == pl.String else cells).cast(pl.Float64)
        for cells in frame.get_columns()
    ]
    features = np.stack([column.fill_null(float("nan")).to_numpy() for column in codes], axis=1)
    parts = np.load(rows, allow_pickle=False)
    train, test = parts["train"], parts["test"]
    start = time.perf_counter()
    model = lightgbm.LGBMClassifier(verbose=-1).fit(features[train], labels[train], categorical_feature=texts)
    seconds = time.perf_counter() - start
    scores = model.predict_proba(features[test])[:, 1]
    found = {"auc": roc_auc_score(labels[test], scores), "log_loss": log_loss(labels[test], scores), "seconds": seconds}
    print(json.dumps({name: float(value) for name, value in found.items()}))


if __name__ == "__main__":
    main()
