"""Understand, diagnose and mend VQ codebook collapse."""

from vqlib import usage
from vqlib.adapters import Adapter
from vqlib.audit import audit, audit_table
from vqlib.config import TrainConfig
from vqlib.diagnosis import diagnose
from vqlib.quantizer import NormEMAQuantizer
from vqlib.records import record
from vqlib.reset import DeadCodeReset
from vqlib.runs import Run
from vqlib.training import TrainingDiverged, train
from vqlib.watching import watch

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "DeadCodeReset",
    "NormEMAQuantizer",
    "Run",
    "TrainConfig",
    "TrainingDiverged",
    "audit",
    "audit_table",
    "diagnose",
    "record",
    "train",
    "usage",
    "watch",
]
