"""`vqlib.quantization.usage` under the name that scripts use."""

import sys

from vqlib.quantization import usage

sys.modules[__name__] = usage
