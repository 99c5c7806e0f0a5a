"""`vqlib.training.experiments` under the name that scripts use."""

import sys

from vqlib import extras

with extras.named():
    from vqlib.training import experiments

sys.modules[__name__] = experiments
