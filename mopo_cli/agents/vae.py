"""The behaviour policy of the data as a conditional variational auto-encoder (BCQ, Fujimoto et al. 2019)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Learned
from mopo_cli.agents.networks import start_single
from mopo_cli.nets.network import Network, descend, descend_with_input_gradient
from mopo_cli.nets.perceptron import Evaluated, evaluate

LATENT = 2
"""Dimensions of the latent per dimension of the action."""
_LOG_STD = -4.0, 15.0  # bounds of the encoder's, as in the released code of BCQ and BEAR
_KL = 0.5  # weight of the latent's divergence, as there


@dataclass
class Vae(Learned):
    """S models, changed in place.

    Encoders map (observation, action) to mean and log std of the latent, decoders (observation, latent) to the action
    before tanh.
    """

    encoder: Network
    decoder: Network


def start_vae(obs_dim: int, act_dim: int, settings: Any, seeds: list[int], device: torch.device | str) -> Vae:
    """Build fresh models with two hidden layers each way, the m-th from the streams of `seeds[m]`."""
    encoder, decoder = vae_sizes(obs_dim, act_dim, settings.behaviour_hidden)
    return Vae(
        start_single("encoder", encoder, settings, seeds, device),
        start_single("decoder", decoder, settings, seeds, device),
    )


def vae_sizes(obs_dim: int, act_dim: int, hidden: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths of an encoder's layers and of a decoder's, from inputs to outputs."""
    latent = LATENT * act_dim
    return (obs_dim + act_dim, hidden, hidden, 2 * latent), (obs_dim + latent, hidden, hidden, act_dim)


def learn(vae: Vae, encoded: Evaluated, observation: Tensor, action: Tensor, noise: Tensor, rate: float) -> Tensor:
    """One gradient step of all models on a batch, in place; returns their losses `[S]`.

    `encoded` are the encoders' values at (observation, action), `[S, B, ·]`, and noise `[S, B, latent]` is standard
    normal.
    """
    mean, raw_log_std = encoded.out.chunk(2, dim=-1)
    log_std = raw_log_std.clamp(*_LOG_STD)
    std = log_std.exp()
    scaled_noise = std * noise
    (decoded,) = evaluate((vae.decoder, (observation, mean + scaled_noise)))
    rebuilt = torch.tanh(decoded.out)
    error = rebuilt - action
    # Loss: mean (decoded action - a)^2 + 0.5 mean KL(latent || standard normal), means over rows and dimensions
    by_decoded = 2 * error * (1 - rebuilt * rebuilt) / error[0].numel()
    by_latent = descend_with_input_gradient(vae.decoder, decoded, by_decoded, rate, slice(observation.shape[-1], None))
    weight = _KL / mean[0].numel()
    by_mean = by_latent + weight * mean
    by_log_std = (by_latent * scaled_noise + weight * (std * std - 1)) * (raw_log_std == log_std)
    descend(vae.encoder, encoded, torch.cat([by_mean, by_log_std], dim=-1), rate)
    kl = 0.5 * (mean * mean + std * std - 1) - log_std
    return error.square().mean(dim=(1, 2)) + _KL * kl.mean(dim=(1, 2))
