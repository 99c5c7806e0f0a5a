"""Any model's quantizer layers, found, read and followed step by step."""
