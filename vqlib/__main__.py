"""``python -m vqlib``, which is also what torchrun starts: the commands of `vqlib.cli`."""

import sys

from vqlib.cli import main

if __name__ == "__main__":
    sys.exit(main())
