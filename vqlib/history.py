"""`vqlib.training.history` under the name that scripts use."""

import sys

from vqlib.training import history

sys.modules[__name__] = history
