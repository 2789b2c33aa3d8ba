"""The parts of the serving benchmark that are not timings: queries, percentiles, LoadGen's summary, the search."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import pytest
import serving_calls
import serving_load
import serving_report
import serving_requests
import serving_search
import serving_session
import serving_side
import serving_sides
from setup_peers import ENVIRONMENTS
from sides import Absence
from workload import Workload

WORKLOAD = Workload(max_rows=50)
TIMES = serving_calls.CallTimes(rows=500, calls=10, p50=0.004, p90=0.005, p99=0.006, mean=0.004, others_share=0.01)
SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 311.49

Result is : {verdict}
  Performance constraints satisfied : NO
Recommendations:
 * Reduce target QPS to improve latency.

================================================
Additional Stats
================================================
Scheduled samples per second : 314.02
Min latency (ns)                : 1091396
50.00 percentile latency (ns)   : 3101205
90.00 percentile latency (ns)   : 11760410
95.00 percentile latency (ns)   : 17760410
97.00 percentile latency (ns)   : 20760410
99.00 percentile latency (ns)   : {p99}
99.90 percentile latency (ns)   : 95025104
"""


class TestQueries:
    def test_sizes_have_the_published_quantiles(self) -> None:
        sizes = serving_requests.query_sizes(20_000, np.random.default_rng(0))
        assert set(sizes) == {100, 200, 300, 400, 500, 600, 700}
        # 1/20 of the quantiles is 700, 12/20 are 200: standard errors are 0.0015 and 0.0035
        assert np.mean(np.equal(sizes, 700)) == pytest.approx(0.05, abs=0.01)
        assert np.mean(np.equal(sizes, 200)) == pytest.approx(0.6, abs=0.02)
        assert np.mean(serving_requests.QUERY_SIZE_QUANTILES) == 270

    def test_rows_of_a_query_share_the_user_and_differ_in_candidates(self) -> None:
        (query,) = serving_requests.make_queries(WORKLOAD, [30])
        split = serving_requests.NUM_USER_FEATURES
        assert len(query) == 30
        assert (query.ids[:, :split] == query.ids[0, :split]).all()
        assert (query.dense == query.dense[0]).all()
        assert len(np.unique(query.ids[:, split:], axis=0)) > 1
        assert (query.ids < WORKLOAD.vocabulary_sizes).all()

    def test_user_columns_are_given_once(self) -> None:
        (query,) = serving_requests.make_queries(WORKLOAD, [30])
        once, full = query.columns(once=True), query.columns(once=False)
        assert {name: value.shape for name, value in once.items() if len(value) == 30} == dict.fromkeys(
            serving_requests.candidate_features(WORKLOAD), (30,)
        )
        assert once["dense"].shape == (1, 13)
        assert once["cat_20"].shape == (1,)
        assert all(len(value) == 30 for value in full.values())
        np.testing.assert_array_equal(full["cat_26"], query.ids[:, 25])

    def test_same_seed_same_queries(self) -> None:
        first, second = (serving_requests.make_queries(WORKLOAD, [5, 7], seed=3) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.ids, other.ids)
            np.testing.assert_array_equal(one.dense, other.dense)


class TestCalls:
    def test_percentiles_are_calls_that_happened(self) -> None:
        assert serving_calls.percentiles([*range(1, 101)]) == (50, 90, 99)
        assert serving_calls.percentiles([7.0]) == (7.0, 7.0, 7.0)

    def test_no_calls_have_no_percentiles(self) -> None:
        with pytest.raises(ValueError, match="no call was timed"):
            serving_calls.percentiles([])

    def test_a_result_survives_its_line(self) -> None:
        result = serving_calls.CallResult(side="a", times={"500": TIMES}, largest_difference=1e-7, versions={"a": "1"})
        assert serving_calls.parse_call_result(f"noise\n{result.to_line()}\n") == result

    def test_output_without_a_result_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no RESULT line"):
            serving_calls.parse_call_result("Traceback")

    def test_a_summary_takes_medians_and_the_worst_disturbance(self) -> None:
        rounds = [replace(TIMES, p50=p50, others_share=share) for p50, share in ((1, 0.1), (5, 0.3), (2, 0.2))]
        summary = serving_calls.summarize_rounds(rounds)
        assert (summary.p50, summary.others_share, summary.calls) == (2, 0.3, 30)
        assert summary.rows_per_second == 250


class TestLoadSummary:
    def parse(self, verdict: str, p99: int) -> serving_load.LoadResult:
        return serving_load.parse_summary(SUMMARY.format(verdict=verdict, p99=p99), "Server", 314.0)

    def test_numbers_are_read_in_seconds(self) -> None:
        found = self.parse("VALID", 25_025_104)
        assert (found.p50, found.p90, found.p99) == (0.003101205, 0.01176041, 0.025025104)
        assert found.queries_per_second == 311.49
        assert found.notes == ("Reduce target QPS to improve latency.",)

    @pytest.mark.parametrize(
        ("verdict", "p99", "passes"),
        [("VALID", 60_000_000, True), ("VALID", 60_000_001, False), ("INVALID", 25_000_000, False)],
    )
    def test_a_rate_passes_where_loadgen_and_the_limit_agree(self, verdict: str, p99: int, passes: bool) -> None:
        assert self.parse(verdict, p99).passes is passes

    def test_another_release_of_loadgen_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"99\.00 percentile latency"):
            serving_load.parse_summary(
                "Result is : VALID\nCompleted samples per second : 1\n50.00 percentile latency (ns) : 1\n"
                "90.00 percentile latency (ns) : 1\n",
                "Server",
                1.0,
            )


@dataclass(frozen=True)
class Probe:
    passes: bool


class TestSearch:
    @pytest.mark.parametrize("limit", [3.0, 99.0, 100.0, 101.0, 900.0])
    def test_finds_the_rate_within_the_tolerance(self, limit: float) -> None:
        search = serving_search.highest_passing_rate(
            lambda rate: Probe(rate <= limit), first=100.0, tolerance=0.05, most_probes=30
        )
        assert search.best is not None
        assert limit / 1.05 <= search.best[0] <= limit

    def test_gives_up_after_so_many_probes(self) -> None:
        search = serving_search.highest_passing_rate(lambda rate: Probe(False), first=100.0, most_probes=4)
        assert search.best is None
        assert [rate for rate, _ in search.probes] == pytest.approx([100 / 1.4**k for k in range(4)])

    def test_limits_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="first=0"):
            serving_search.highest_passing_rate(lambda rate: Probe(True), first=0)


class TestSides:
    def test_every_side_has_its_script_and_environment(self) -> None:
        for side in serving_sides.SERVING_SIDES.values():
            assert (serving_sides.BENCHMARKS_DIR / side.script).is_file()
            assert side.environment is None or side.environment in ENVIRONMENTS

    def test_a_peer_that_is_not_installed_is_named(self, tmp_path) -> None:
        absence = serving_sides.absence_of("onnxruntime", tmp_path)
        assert absence is not None
        assert "setup_peers.py serving" in absence.reason
        assert serving_sides.absence_of("tfdlrm-rank", tmp_path) is None

    def test_the_workload_survives_its_file(self, tmp_path) -> None:
        import json

        (tmp_path / serving_side.WORKLOAD_FILE).write_text(json.dumps(WORKLOAD.to_flags()))
        assert serving_side.read_workload(tmp_path) == WORKLOAD

    def test_another_models_answers_are_refused(self, tmp_path) -> None:
        answers = np.full(3, 0.5, np.float32)
        np.savez(tmp_path / serving_side.ANSWERS_FILE, **{"3_0": answers})
        close = {3: [lambda: answers[:, np.newaxis] + np.float32(2e-7)]}
        assert 0 < serving_side.check_answers("a", tmp_path, close) < 1e-6
        with pytest.raises(SystemExit, match="serves another model"):
            serving_side.check_answers("a", tmp_path, {3: [lambda: answers + np.float32(1e-3)]})
        with pytest.raises(SystemExit, match="serves another model"):
            serving_side.check_answers("a", tmp_path, {3: [lambda: answers * np.nan]})
        with pytest.raises(SystemExit, match="2 probabilities, and the model gives 3"):
            serving_side.check_answers("a", tmp_path, {3: [lambda: answers[:2]]})


class TestReport:
    def times(self, **p50: float) -> dict[str, dict[int, serving_calls.CallTimes]]:
        return {side.replace("_", "-"): {500: replace(TIMES, p50=value)} for side, value in p50.items()}

    def judged(self, times: serving_report.Times, absences: tuple[Absence, ...] = ()) -> dict[str, bool | None]:
        return {target.name: target.is_met for target in serving_report.targets(times, {}, absences)}

    def test_ratios_are_of_medians(self) -> None:
        judged = self.judged(self.times(tfdlrm_rank=2.0, tfdlrm_predict=4.5, torchscript=4.0, onnxruntime=2.9))
        assert judged["tfdlrm-rank of 500 over torchscript"] is True
        assert judged["tfdlrm-rank of 500 over onnxruntime"] is False  # 1.45
        assert judged["tfdlrm-predict of 500 over torchscript"] is False  # 0.89
        assert judged["tfdlrm-predict of one row, p50"] is None

    def test_disturbed_and_absent_sides_are_not_judged(self) -> None:
        times = self.times(tfdlrm_rank=2.0, torchscript=4.0)
        times["torchscript"] = {500: replace(TIMES, others_share=0.4)}
        targets = serving_report.targets(times, {}, (Absence(side="onnxruntime", reason="not installed (..)"),))
        lines = [str(target) for target in targets]
        assert "torchscript disturbed" in lines[0]
        assert "not installed" in lines[1]
        assert "disturbed" in "\n".join(serving_report.ratios_table(times, 500))

    def test_a_held_rate_is_named(self) -> None:
        run = {"target_qps": 321.0, "p50": 0.003, "p99": 0.04, "others_share": 0.0, "queries_per_second": 320.0}
        load = {"server": run, "offline": run, "pairs_per_query": 270.0, "probes": [run], "lanes": 2}
        (target,) = serving_report.targets({}, {"tfdlrm-rank": load}, ())[-1:]
        assert str(target) == "tfdlrm-rank, LoadGen Server p99 at 321 queries/s <= 60 ms: 40.000 ms, met"
        assert "| tfdlrm-rank | 321 | 86,670 | 3.0 | 40.0 | 0% | 1 | 320 | 86,400 |" in serving_report.load_table(
            {"tfdlrm-rank": load}
        )
        slower = {**load, "server": {**run, "target_qps": 107.0}}
        assert "- tfdlrm-rank over torchscript: 3.00×" in serving_report.load_table(
            {"tfdlrm-rank": load, "torchscript": slower}
        )
        disturbed = {**load, "server": {**run, "others_share": 0.5}}
        assert "not judged" in str(serving_report.targets({}, {"tfdlrm-rank": disturbed}, ())[-1])
        nothing = serving_report.load_table({"tfdlrm-rank": {**load, "server": None}})[-1]
        assert nothing.count("|") == 10  # as many cells as the heading


def test_the_call_flags_are_those_that_a_side_takes(capsys) -> None:
    with pytest.raises(SystemExit):
        serving_side.parse_arguments("of a test", ["a"], ["b", "--folder", "f"])
    assert "invalid choice: 'b'" in capsys.readouterr().err
    given = serving_side.parse_arguments("of a test", ["a"], ["a", "--folder", "f", "--rows", "500"])
    assert isinstance(given, argparse.Namespace)
    assert (given.rows, given.load_seconds) == ([500], 0.0)


class TestLoadGenerator:
    def test_every_run_of_a_process_has_dlrm_v2s_limit(self) -> None:
        """LoadGen reads its own configuration in the first run only, unless it is told to."""
        seen = []

        def score(index: int) -> np.ndarray:
            seen.append(index)
            return np.full(2, 0.5, np.float32)

        for _ in range(2):
            found = serving_load.run_load("Server", score, 16, target_qps=4000, seconds=0.1, lanes=2)
            assert found.scenario == "Server"
            assert found.p50 <= found.p99
        assert len(seen) >= 2 * serving_load.MIN_QUERIES
        assert set(seen) <= set(range(16))

    def test_a_scorer_that_fails_is_not_a_result(self) -> None:
        def score(index: int) -> np.ndarray:
            raise ArithmeticError(f"sample {index}")

        with pytest.raises(ArithmeticError, match="sample"):
            serving_load.run_load("Offline", score, 4, target_qps=100, seconds=0.1, lanes=1)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> serving_session.Session:
    import tensorflow as tf

    module = tf.Module()
    module.offset = tf.Variable([[0.5]])
    kinds = {"x": ([None, 2], tf.float32), "ids": ([None], tf.int64), "k": ([], tf.int32)}
    specs = {name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in kinds.items()}

    @tf.function
    def serve(inputs):
        row = tf.reduce_sum(inputs["x"], axis=1, keepdims=True) + module.offset
        top = tf.math.top_k(tf.cast(inputs["ids"], tf.float32), inputs["k"])
        return {"probability": row, "top_index": top.indices}

    folder = tmp_path_factory.mktemp("session")
    tf.saved_model.save(module, str(folder), signatures={"rank": serve.get_concrete_function(specs)})
    return serving_session.Session(folder, intra_op_threads=1, inter_op_threads=serving_session.CALLER_THREAD)


class TestSession:
    def test_a_call_gives_what_the_signature_gives(self, session) -> None:
        inputs = {"x": np.float32([[1, 2], [3, 4], [5, 6]]), "ids": np.int64([7, 9, 8]), "k": np.int32(2)}
        call = session.call("rank", inputs, ("probability", "top_index"))
        for _ in range(3):  # a call may be run again
            outputs = call.run()
            np.testing.assert_array_equal(outputs["probability"], np.float32([[3.5], [7.5], [11.5]]))
            np.testing.assert_array_equal(outputs["top_index"], np.int32([1, 2]))
            assert outputs["top_index"].dtype == np.int32

    def test_what_tensorflow_refuses_is_an_error(self, session) -> None:
        inputs = {"x": np.float32([[1, 2]]), "ids": np.int64([7]), "k": np.int32(5)}
        with pytest.raises(RuntimeError, match="TF_SessionRun"):
            session.call("rank", inputs).run()

    def test_missing_inputs_and_signatures_are_named(self, session) -> None:
        with pytest.raises(ValueError, match=r"\['ids', 'k'\] are missing"):
            session.call("rank", {"x": np.float32([[1, 2]])})
        with pytest.raises(KeyError, match="no signature 'predict'"):
            session.tensor_names("predict")

    def test_a_folder_without_a_model_is_an_error(self, tmp_path) -> None:
        with pytest.raises(RuntimeError, match="Could not find SavedModel"):
            serving_session.Session(tmp_path, intra_op_threads=1, inter_op_threads=1)
