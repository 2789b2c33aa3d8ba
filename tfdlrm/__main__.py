"""`python -m tfdlrm`: the same as the console script."""

import sys

from tfdlrm.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
