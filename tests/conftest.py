"""What every test runs under: CPU only, two logical devices, fixed seeds, a fresh Keras session."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator

# TensorFlow reads these once, when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings

from tests.kernels import both_kernels  # noqa: F401 - a fixture

# MirroredStrategy needs two devices, and they cannot be added once TensorFlow has run an op.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()],
)

# Tests run side by side: a second thread of an op would take the core of another test's. The kernels' own threads are
# tried in processes of their own (tests/native).
tf.config.threading.set_intra_op_parallelism_threads(1)

# No deadline: the first example of a property often traces a graph. Derandomized: a failure can be repeated.
settings.register_profile("tfdlrm", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tfdlrm")

# `make test-tfx` runs these where TFX is
collect_ignore = [] if importlib.util.find_spec("tfx") else ["pipelines"]

SEED = 20190531  # the day of the DLRM paper, arXiv 1906.00091


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that start processes come first: of two workers, none is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("multiprocess")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported by now stays: to look through all of it takes a garbage collection 0.4 s, and 0.1 s without."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)  # traced graphs are many small objects


@pytest.fixture(autouse=True)
def fresh_keras_session() -> Iterator[None]:
    """Seeds before each test; names, policy and session of one test do not reach the next."""
    keras.utils.set_random_seed(SEED)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
    keras.backend.clear_session(free_memory=False)  # a garbage collection takes 0.4 s; below, once a module


@pytest.fixture(autouse=True, scope="module")
def free_memory() -> Iterator[None]:
    """Tables and graphs of one module are gone before the next begins."""
    yield
    gc.collect()
