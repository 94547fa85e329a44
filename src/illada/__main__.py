"""`python -m illada` and the command `illada`."""

import sys

from illada.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
