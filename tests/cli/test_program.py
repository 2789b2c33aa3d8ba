"""The program: help, errors in one line, exit codes."""

from __future__ import annotations

import configparser
import errno
import io
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import tensorflow as tf

from savedmodels.commands import add_demo, add_export
from tests.late_signals import SIGNAL_AT_THE_END
from tfdlrm.cli.errors import is_expected, one_line
from tfdlrm.cli.program import COMMAND_GROUP, build_parser, main, own_commands
from tfdlrm.data.quarantine import BadRow, BadRowError

ROOT = Path(__file__).parents[2]
COMMANDS = [*own_commands(), add_export, add_demo]


def failing(error: BaseException):
    """A command `fail` that raises."""

    def run(arguments):
        raise error

    def add_command(commands):
        commands.add_parser("fail").set_defaults(run=run)

    return [add_command]


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "config", "export", "demo"])
def test_every_command_has_help(capsys, command):
    assert main([command, "--help"], COMMANDS) == 0
    assert f"usage: tfdlrm {command}" in capsys.readouterr().out


def test_help_names_every_command(capsys):
    assert main(["--help"], COMMANDS) == 0
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in ("train", "evaluate", "predict", "config", "export", "demo"))
    assert main(["--version"], COMMANDS) == 0
    assert capsys.readouterr().out.startswith("tfdlrm 0.")


def test_setup_cfg_announces_the_commands_of_other_packages():
    """From the file and not from what is installed, which may be older."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"][COMMAND_GROUP].split("\n")
    entries = [[part.strip() for part in line.split("=")] for line in lines if line]
    commands = [EntryPoint(name, value, COMMAND_GROUP).load() for name, value in entries]
    assert {name for name, _ in entries} == set(build_parser(commands)._subparsers._group_actions[0].choices)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "CONFIG is missing. Give a YAML file or a preset"),
        (["train", "quickstart", "--seeds", "0,x"], "'0,x' is not a list of seeds. Write it as 0,1,2"),
        (["evaluate", "m", "--data", "a", "--part", "test"], "not allowed with argument"),
        (["train", "quickstrat"], "'quickstrat' is neither a file nor a preset, did you mean 'quickstart'?"),
        (["train", "quickstart", "--set", "train.epoch=2"], "unknown key 'epoch', did you mean 'epochs'?"),
        (["train", "quickstart", "--set", "train.epochs"], "'train.epochs' is not an assignment"),
        (["train", "quickstart", "--data", "x.csv"], "x.csv: there is no such file"),
        (["config", "show", "nothing.yaml"], "'nothing.yaml' is neither a file nor a preset"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, argv, message):
    assert main(argv, COMMANDS) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("tfdlrm: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("table 'item':\n  too wide."), "table 'item': too wide."),
        (
            OSError(errno.EROFS, "Read-only file system", "/m/x"),
            "/m/x: Read-only file system. Give a place that can be written.",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.csv"), "x.csv: No such file or directory."),
        (FileNotFoundError("x.csv: there is no such file."), "x.csv: there is no such file."),
        (ImportError("Reading needs polars."), "Reading needs polars."),
        (RuntimeError(), "RuntimeError"),
        (
            BadRowError(BadRow(file="x", line=3, column="age", value="a", reason="not a number", fix="Mend it.")),
            "x, line 3, column 'age': not a number (found 'a'). Mend it. Or set bad rows aside: --bad-rows quarantine.",
        ),
    ],
)
def test_expected_errors_are_one_line(capsys, error, line):
    assert main(["fail"], failing(error)) == 2
    assert capsys.readouterr().err == f"tfdlrm: error: {line}\n"


def test_a_failed_check_inside_a_graph_is_one_line():
    @tf.function
    def check(ids):
        tf.debugging.Assert(tf.reduce_all(ids < 3), ["feature 'user' (table 'user'): id ", 7, " is outside"])
        return ids

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        check(tf.constant([7]))
    assert is_expected(caught.value)
    assert one_line(caught.value).startswith("feature 'user' (table 'user'): id")
    assert "node" not in one_line(caught.value)


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AssertionError("x"), NotImplementedError("x")])
def test_defects_keep_their_traceback(error):
    with pytest.raises(type(error)):
        main(["fail"], failing(error))


def test_debug_shows_the_traceback_of_any_error():
    for argv in (["fail", "--debug"], ["--debug", "fail"]):
        with pytest.raises(ValueError, match="bad"):
            main(argv, failing(ValueError("bad")))


def test_ctrl_c_ends_with_130(capsys):
    assert main(["fail"], failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "tfdlrm: interrupted\n"


def test_config_show_prints_yaml_that_reads_back(capsys, tmp_path):
    assert main(["config", "show", "criteo-kaggle", "--set", "train.epochs=3"], COMMANDS) == 0
    shown = capsys.readouterr().out
    assert "epochs: 3" in shown
    (tmp_path / "mine.yaml").write_text(shown)
    assert main(["config", "show", str(tmp_path / "mine.yaml")], COMMANDS) == 0
    assert capsys.readouterr().out == shown


def test_config_list_prints_the_presets(capsys):
    assert main(["config", "list"], COMMANDS) == 0
    assert {"quickstart", "movielens-100k", "mlperf-dcnv2"} <= set(capsys.readouterr().out.split())


def test_tables_are_whole_where_they_are_piped(monkeypatch):
    from tfdlrm.cli.tables import print_metrics

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "20")
    print_metrics("test part", {"rows": 12345, "auc": 0.75, "gauc": float("nan"), "click_log_loss": 0.5})
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert "rows 12,345" in lines
    assert "auc 0.750000 area under ROC, exact, ties count half" in lines
    assert "gauc undefined AUC within groups, weighted by rows" in lines
    assert "click_log_loss 0.500000 nats" in lines


@pytest.mark.multiprocess
def test_a_reader_that_goes_away_is_met_with_silence():
    """In a process of its own, which imports TensorFlow without its notes."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tfdlrm", "config", "show", "mlperf-dcnv2"]
    process = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert process.returncode == 141
    assert process.stderr == ""


@pytest.mark.multiprocess
@pytest.mark.parametrize(("arguments", "code"), [(["config", "list"], 0), (["config", "show", "nowhere.yaml"], 2)])
def test_signals_while_the_interpreter_finishes_change_no_exit_code(arguments: list[str], code: int) -> None:
    run = SIGNAL_AT_THE_END + "from tfdlrm.cli import run_program\nrun_program()"
    done = subprocess.run([sys.executable, "-c", run, *arguments], capture_output=True, check=False)
    assert done.returncode == code, done.stderr


@pytest.mark.multiprocess
def test_what_a_reader_of_rows_raises_within_a_graph_is_one_line() -> None:
    def read(_: object) -> None:
        raise ValueError("part.arrow: id 7 is not in [0, 5). Prepare the data again.")

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.py_function(read, [tf.constant(0)], tf.float32)
    assert one_line(caught.value) == "part.arrow: id 7 is not in [0, 5). Prepare the data again."


def test_a_warning_is_one_line() -> None:
    run = (
        "import warnings\nfrom tfdlrm.cli import program\n"
        "program.main = lambda: warnings.warn('checkpoint a is damaged:\\n  going back to b') or 0\n"
        "program.run_program()"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert done.stderr == "tfdlrm: warning: checkpoint a is damaged: going back to b\n"
