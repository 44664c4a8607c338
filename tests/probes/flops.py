"""The floating point operations of the products that are made while something runs, as torch counts them."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def _linear(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * x[0] * x[1] * weight[0]


def counted(work: Callable[[], object]) -> int:
    """Torch counts its own products, and by the formula above those that it hands to oneDNN."""
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    with FlopCounterMode(display=False, custom_mapping={} if packet is None else {packet: _linear}) as counter:
        work()
    return int(counter.get_total_flops())
