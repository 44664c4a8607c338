"""A world known in closed form: linear dynamics with Gaussian noise, as data and as an ensemble that is exactly that.

SiLU nets hold linear maps: silu(x) - silu(-x) = x. So a network of one hidden layer with weights (I, -I) passes its
input on, and its heads may be any linear map.
"""

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.nets.gaussian import gaussian_layout


def linear_ensemble(
    maps: Tensor,
    offset: Tensor,
    std: Tensor,
    elites: tuple[int, ...],
    input_mean: Tensor | None = None,
    input_std: Tensor | None = None,
) -> Ensemble:
    """K networks with mean (s, a) @ maps[k] + offset[k] and a constant std[k]: `[K, I, O + 1]`, `[K, O + 1]` twice."""
    networks, inputs, outputs = maps.shape
    input_mean = torch.zeros(inputs) if input_mean is None else input_mean
    input_std = torch.ones(inputs) if input_std is None else input_std
    scaled = maps * input_std[:, None]
    eye, zero = torch.eye(inputs).expand(networks, -1, -1), torch.zeros(networks, 2 * inputs, outputs)
    layout = gaussian_layout(inputs, outputs, 2 * inputs, 1)
    flat = layout.pack(
        {
            "w0": torch.cat([eye, -eye], dim=2),
            "b0": torch.zeros(networks, 1, 2 * inputs),
            "w_mean": torch.cat([scaled, -scaled], dim=1),
            "b_mean": (offset + input_mean @ maps)[:, None],
            "w_logvar": zero,
            "b_logvar": 2 * std.log()[:, None],
            "max_logvar": torch.full((networks, 1, outputs), 50.0),  # so far off that they do not bend anything
            "min_logvar": torch.full((networks, 1, outputs), -50.0),
        }
    )
    return Ensemble(flat, layout, input_mean, input_std, outputs - 1, elites)
