"""The quantizer, its resets, its metrics and its faults: torch and nothing else."""
