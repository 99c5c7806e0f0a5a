# for type checkers, which do not see that the module is replaced
from vqlib.training.history import *
