"""`python -m measurand` is `measurand`; `torchrun -m measurand` starts it on every processor."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
