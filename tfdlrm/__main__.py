"""`python -m tfdlrm`: the same as the console script."""

from tfdlrm.cli.program import run_program

if __name__ == "__main__":
    run_program()
