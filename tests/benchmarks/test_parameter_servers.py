"""The report of parameter servers: bytes against what is needed, steps against one process."""

from __future__ import annotations

from parameter_servers import name_of, step_report, wire_report
from side_parameter_servers import ClusterResult, parse_counts

SHOWN = """\
ESTAB 0 0 127.0.0.1:40000 127.0.0.1:50000 users:(("python",pid=12,fd=9)) cubic bytes_sent:100 bytes_acked:100 \
bytes_received:23 segs_out:4
ESTAB 0 0 127.0.0.1:50000 127.0.0.1:40000 users:(("python",pid=7,fd=3)) cubic bytes_sent:23 bytes_received:100
ESTAB 0 0 127.0.0.1:41000 127.0.0.1:50001 users:(("python",pid=12,fd=10),("python",pid=13,fd=10)) bytes_received:1000
"""


def result(count: int, **fields: object) -> ClusterResult:
    values: dict = {
        "step_seconds": 0.01,
        "wire_bytes": 2200.0,
        "unique_ids": 10.0,
        "dense_bytes": 400,
        "embedding_dim": 4,
        "cpu_seconds": {"coordinator": 0.001, "worker": 0.002, "ps": 0.003},
    }
    return ClusterResult(workers=count, parameter_servers=count, **{**values, **fields})


def test_bytes_are_those_of_the_processes_connections() -> None:
    assert parse_counts(SHOWN, [12]) == 1123
    assert parse_counts(SHOWN, [13]) == 1000
    assert parse_counts(SHOWN, [1]) == 0


def test_needed_bytes_are_ids_rows_sums_and_dense_weights() -> None:
    assert result(1).needed_bytes == 10 * (8 + 2 * 4 * 4) + 2 * 400


def test_the_worst_ratio_is_judged() -> None:
    text = "\n".join(wire_report([(10, result(1, wire_bytes=1200.0)), (1000, result(2, wire_bytes=1500.0))]))
    assert "| 1 | 10 | 10 | 0.001 | 0.000 | 0.001 | 1.000× |" in text
    assert "bytes over needed, at worst <= 1.15×: 1.250×, NOT met" in text


def test_steps_are_medians_beside_one_process() -> None:
    rounds = [
        [result(0, step_seconds=alone), result(1, step_seconds=over), result(2)]
        for alone, over in ((0.01, 0.02), (0.02, 0.9), (0.01, 0.024))
    ]
    text = "\n".join(step_report(rounds, 100))
    assert "| one process | 10.0 | 10,000 | 1.00× | 1.0 | 2.0 | 3.0 |" in text
    assert "| 1 x 1 | 24.0 | 4,167 | 2.40× |" in text
    assert "1 x 1 over one process <= 2.5×: 2.400×, met" in text
    assert name_of(result(2)) == "2 x 2"


def test_a_disturbed_run_is_not_judged() -> None:
    text = "\n".join(step_report([[result(0), result(1, others_share=0.5), result(2)]], 100))
    assert "not judged (disturbed: other processes took up to 50% of the CPUs" in text
