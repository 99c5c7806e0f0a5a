"""Understand, diagnose and mend VQ codebook collapse."""

from vqlib import usage
from vqlib.audit import audit, audit_table
from vqlib.config import TrainConfig
from vqlib.diagnosis import diagnose
from vqlib.quantizer import NormEMAQuantizer
from vqlib.records import record
from vqlib.reset import DeadCodeReset
from vqlib.runs import Run
from vqlib.training import TrainingDiverged, train

__version__ = "0.1.0"

__all__ = [
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
]
