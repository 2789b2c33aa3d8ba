"""This project's sides of the serving benchmark, and a plain TensorFlow SavedModel as context.

tfdlrm-rank, tfdlrm-predict                   signatures of our export through TensorFlow's C API, as in a server
tfdlrm-rank-python, tfdlrm-predict-python     the same, loaded by tf.saved_model.load and called from Python
tensorflow                                    the same model in plain TensorFlow, called from Python
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from serving_requests import Query
from serving_session import CALLER_THREAD, Session
from serving_side import EXPORT_FOLDER, MakeCall, run_side

PREDICT = ("predict", "serving_default")  # the first that an export has
RANK = "rank"
TOP = 10  # candidates that `rank` picks out
PROBABILITY = "probability"


def inputs_of(query: Query, signature: str) -> dict[str, np.ndarray]:
    """What a signature takes."""
    if signature != RANK:
        return query.columns(once=False)
    return {**query.columns(once=True), "k": np.int32(min(TOP, len(query)))}


def signature_of(found: Mapping[str, object], wanted: str) -> str:
    """The signature of an export that does what is wanted, `rank` or `predict`.

    Raises:
        SystemExit: it has none.
    """
    for name in (RANK,) if wanted == RANK else PREDICT:
        if name in found:
            return name
    raise SystemExit(f"the export has no signature for {wanted!r}; it has {sorted(found)}")


def through_c_api(wanted: str, folder: Path, threads: int) -> tuple[MakeCall, Mapping[str, str]]:
    """`TF_SessionRun`, ops in the calling thread."""
    session = Session(folder / EXPORT_FOLDER, intra_op_threads=threads, inter_op_threads=CALLER_THREAD)
    signature = signature_of(session.signatures, wanted)

    def make_call(query: Query) -> Callable[[], np.ndarray]:
        call = session.call(signature, inputs_of(query, signature), (PROBABILITY,))
        return lambda: call.run()[PROBABILITY]

    return make_call, versions()


def through_python(
    wanted: str, folder: Path, threads: int, export: str = EXPORT_FOLDER
) -> tuple[MakeCall, Mapping[str, str]]:
    """The signature's concrete function on tensors."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(str(folder / export))
    signature = signature_of(loaded.signatures, wanted)
    function = loaded.signatures[signature]

    def make_call(query: Query) -> Callable[[], np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs_of(query, signature).items()}

        def call() -> np.ndarray:
            assert loaded is not None  # a function does not keep its variables alive
            return function(**tensors)[PROBABILITY].numpy()

        return call

    return make_call, versions()


def versions() -> dict[str, str]:
    """Of what does the work."""
    import tfdlrm

    return {"tensorflow": tf.__version__, "tfdlrm": tfdlrm.__version__}


if __name__ == "__main__":
    run_side(
        __doc__,
        {
            "tfdlrm-rank": functools.partial(through_c_api, RANK),
            "tfdlrm-predict": functools.partial(through_c_api, "predict"),
            "tfdlrm-rank-python": functools.partial(through_python, RANK),
            "tfdlrm-predict-python": functools.partial(through_python, "predict"),
            "tensorflow": functools.partial(through_python, "predict", export="plain"),
        },
    )
