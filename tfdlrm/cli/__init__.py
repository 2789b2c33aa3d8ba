"""The command line: flags -> config -> one call. A module a command, and no logic of their own."""

from tfdlrm.cli.program import main, run_program

__all__ = ["main", "run_program"]
