"""`vqlib.training.experiments` under the name that scripts use."""

import sys

from vqlib.training import experiments

sys.modules[__name__] = experiments
