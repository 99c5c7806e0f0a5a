"""``python -m vqlib.cli``, the same as ``python -m vqlib``."""

import sys

from vqlib.cli import main

sys.exit(main())
