"""The numbers that matrix products are made in; by itself, as settings are read without loading torch."""

from typing import Literal

Precision = Literal["fp32", "tf32", "bf16"]
"""Float32; on a GPU TensorFloat-32, with 10 of its 23 bits; or, of hidden layers, bfloat16."""
