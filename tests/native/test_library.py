"""Building and loading: once for two processes, and a usable program where it cannot be done."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.forked import Forked
from tfdlrm.native import build, loader

pytestmark = pytest.mark.multiprocess

TRAIN = """
import sys, warnings
import numpy as np, tensorflow as tf
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from tfdlrm import EmbeddingCollection, FeatureConfig, TableConfig, optimizers
    from tfdlrm.embeddings.recording import record_lookups
    table = TableConfig(name="t", vocabulary_size=50, embedding_dim=6)
    layer = EmbeddingCollection([FeatureConfig(name="f", table=table, hotness=2)],
                                optimizer=optimizers.RowwiseAdagrad(0.1), seed=3)
    layer.build()
    for step in range(3):
        ids = tf.constant(np.random.default_rng(step).integers(0, 50, (8, 2)))
        with tf.GradientTape() as tape, record_lookups(tape) as recorder:
            loss = tf.reduce_sum(tf.sin(layer({"f": ids}, training=True)))
        recorder.update(tape.gradient(loss, recorder.leaves))
    other = EmbeddingCollection([FeatureConfig(name="f", table=table)])
    other.build()
from tfdlrm.native import loader
print("WARNINGS", [str(w.message) for w in caught if isinstance(w.message, loader.NativeWarning)])
print("NATIVE", loader.library() is not None)
np.save(sys.argv[1], layer.tables.rows("t").numpy())
"""


def _environment(cache: Path, **settings: str) -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", loader.CACHE_SETTING: str(cache), **settings}


def _train(folder: Path, name: str, cache: Path, **settings: str) -> tuple[str, Path]:
    rows = folder / f"{name}.npy"
    result = Forked(TRAIN, rows, environment=_environment(cache, **settings)).wait()
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, rows


@pytest.fixture(scope="module")
def native_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows trained by the kernels, from the library that the tests use."""
    assert loader.library() is not None
    folder = tmp_path_factory.mktemp("native")
    out, rows = _train(folder, "native", loader.cache_dir(), TFDLRM_NATIVE="require")
    assert "NATIVE True" in out
    assert "WARNINGS []" in out
    return rows


def _fake_compiler(folder: Path, action: str) -> Path:
    """A compiler that notes each call, and links by doing `action`."""
    script = folder / "fake-g++"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/calls\n'
        'case "$*" in *--version*) echo fake 1.0; exit 0;; esac\n'
        'while [ $# -gt 1 ] && [ "$1" != "-o" ]; do case "$1" in -shared) link=1;; esac; shift; done\n'
        f'if [ -n "$link" ]; then {action}; else sleep 0.3; touch "$2"; fi\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def _links(folder: Path) -> int:
    return sum("-shared" in line for line in (folder / "calls").read_text().splitlines())


CASES = {
    "no compiler": ({"CXX": "/no/such/compiler"}, "there is no C++ compiler"),
    "a compiler that fails": ({"CXX": "/bin/false"}, "false failed"),
}


@pytest.mark.parametrize("case", CASES)
def test_without_the_kernels_there_is_one_warning_and_the_same_weights(
    case: str, tmp_path: Path, native_rows: Path
) -> None:
    import numpy as np

    settings, message = CASES[case]
    out, rows = _train(tmp_path, "plain", tmp_path / "cache", **settings)
    assert "NATIVE False" in out
    assert out.count("native kernels cannot be used") == 1
    assert message in out
    assert "several times slower" in out
    assert "TFDLRM_NATIVE=off" in out
    np.testing.assert_allclose(np.load(rows), np.load(native_rows), rtol=1e-6, atol=1e-7)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out, _ = _train(tmp_path, "plain", tmp_path / "file" / "cache")
    assert "NATIVE False" in out
    assert out.count("native kernels cannot be used") == 1
    assert loader.CACHE_SETTING in out


def test_a_home_that_is_read_only(tmp_path: Path) -> None:
    # permissions do not bind root; a path in /proc binds everybody
    settings = {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "", loader.CACHE_SETTING: ""}
    out, _ = _train(tmp_path, "plain", tmp_path, **settings)
    assert "NATIVE False" in out
    assert out.count("native kernels cannot be used") == 1


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = _train(tmp_path, "off", tmp_path / "cache", TFDLRM_NATIVE="off", CXX="/no/such/compiler")
    assert "NATIVE False" in out
    assert "WARNINGS []" in out
    monkeypatch.setenv(loader.SETTING, "perhaps")
    with pytest.raises(ValueError, match=r"TFDLRM_NATIVE='perhaps' is unknown. Use one of auto, off, require"):
        loader.library()


def test_off_where_tables_live_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loader.SETTING, "auto")
    monkeypatch.setattr(loader, "_gpus", lambda: ["GPU:0"])
    loader._library.cache_clear()
    try:
        assert loader.library() is None
    finally:
        loader._library.cache_clear()


def test_require_is_an_error_without_a_compiler(tmp_path: Path) -> None:
    environment = _environment(tmp_path, TFDLRM_NATIVE="require", CXX="/no/such/compiler")
    result = Forked("from tfdlrm.native import loader; loader.library()", environment=environment).wait()
    assert result.returncode != 0
    assert "RuntimeError: TFDLRM_NATIVE=require, but native kernels cannot be used" in result.stderr


def test_two_processes_that_start_together_build_once(tmp_path: Path) -> None:
    compiler = _fake_compiler(tmp_path, f'cp {loader.library_path()} "$2"')
    code = "from tfdlrm.native import loader; assert loader.library() is not None"
    environment = _environment(tmp_path / "cache", CXX=str(compiler), TFDLRM_NATIVE="require")
    both = [process.wait() for process in [Forked(code, environment=environment) for _ in range(2)]]
    assert [done.returncode for done in both] == [0, 0], both
    assert _links(tmp_path) == 1


def test_a_damaged_library_is_built_again(tmp_path: Path) -> None:
    compiler = _fake_compiler(tmp_path, f'cp {loader.library_path()} "$2"')
    environment = _environment(tmp_path / "cache", CXX=str(compiler), TFDLRM_NATIVE="require")
    code = "from tfdlrm.native import loader; print(loader.library() is not None, loader.library_path())"

    def run() -> str:
        return Forked(code, environment=environment).wait().stdout

    path = Path(run().split()[1])
    path.write_bytes(path.read_bytes()[:1000])
    assert run().startswith("True")
    assert _links(tmp_path) == 2


def test_the_key_follows_what_the_library_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = build.cache_key()
    assert build.cache_key() == key
    monkeypatch.setenv("TFDLRM_NATIVE_CXXFLAGS", "-DX")
    flags = build.cache_key()
    monkeypatch.delenv("TFDLRM_NATIVE_CXXFLAGS")
    shutil.copytree(build.SOURCE_DIR, tmp_path / "src")
    with (tmp_path / "src" / "ops.cc").open("a") as file:
        file.write("// changed\n")
    monkeypatch.setattr(build, "SOURCE_DIR", tmp_path / "src")
    assert len({key, flags, build.cache_key()}) == 3
