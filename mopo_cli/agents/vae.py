"""What acted in the data, as a conditional variational auto-encoder of its actions (BCQ, Fujimoto et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.parallel import spread_evenly
from mopo_cli.engine.streams import stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.perceptron import Evaluated, differentiate, evaluate, first_slope
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layout, Parameters, join, mlp_layout

LATENT = 2
"""Dimensions of the latent per dimension of the action."""
_LOG_STD = -4.0, 15.0  # bounds of the encoder's, as in the released code of BCQ and BEAR
_KL = 0.5  # weight of the latent's divergence, as there


@dataclass
class Vae:
    """S models `[S, ·]`, changed in place.

    Encoders say mean and log std of the latent of (observation, action), decoders the action of (observation, latent),
    before tanh.
    """

    encoder_layout: Layout
    decoder_layout: Layout
    encoder: Tensor
    decoder: Tensor
    encoder_adam: Adam
    decoder_adam: Adam
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        self.encoding = Parameters(self.encoder_layout, self.encoder, self.precision)
        self.decoding = Parameters(self.decoder_layout, self.decoder, self.precision)
        self.encoder_gradient = Parameters(self.encoder_layout, self.encoder_adam.grad)
        self.decoder_gradient = Parameters(self.decoder_layout, self.decoder_adam.grad)


def start_vae(
    obs_dim: int, act_dim: int, hidden: int, seeds: list[int], device: torch.device | str, precision: Precision = "fp32"
) -> Vae:
    """Build fresh models with two hidden layers each way, the m-th from the streams of `seeds[m]`."""
    encoder_layout, decoder_layout = (mlp_layout(sizes) for sizes in vae_sizes(obs_dim, act_dim, hidden))
    encoder, decoder = (
        initial(layout, [stream(seed, f"{name}/weights") for seed in seeds], uniform, uniform).to(device)
        for name, layout in (("encoder", encoder_layout), ("decoder", decoder_layout))
    )
    adams = Adam.like(encoder), Adam.like(decoder)
    return Vae(encoder_layout, decoder_layout, encoder, decoder, *adams, precision)


def vae_sizes(obs_dim: int, act_dim: int, hidden: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths of an encoder's layers and of a decoder's, from inputs to outputs."""
    latent = LATENT * act_dim
    return (obs_dim + act_dim, hidden, hidden, 2 * latent), (obs_dim + latent, hidden, hidden, act_dim)


def learn(vae: Vae, coded: Evaluated, observation: Tensor, action: Tensor, noise: Tensor, rate: float) -> Tensor:
    """One gradient step of all models on a batch, in place; returns their losses `[S]`.

    `coded` are the encoders' values at (observation, action), `[S, B, ·]`, and noise `[S, B, latent]` is standard
    normal. The loss is the mean squared error of the decoded action, plus 0.5 of the latent's KL divergence from a
    standard normal, both means over rows and dimensions.
    """
    mean, raw = coded.out.chunk(2, dim=-1)
    log_std = raw.clamp(*_LOG_STD)
    std = log_std.exp()
    deviation = std * noise
    (decoded,) = evaluate((vae.decoding, (observation, mean + deviation)))
    rebuilt = torch.tanh(decoded.out)
    error = rebuilt - action
    by_decoded = 2 * error * (1 - rebuilt * rebuilt) / error[0].numel()

    def improve_decoder(u: int) -> Tensor:
        by_first = differentiate(decoded, u, by_decoded, into=vae.decoder_gradient)
        slope = first_slope(decoded, u, by_first, observation.shape[-1])
        vae.decoder_adam.step(u, vae.decoder, rate)
        return slope

    vae.decoder_adam.steps += 1
    by_latent = join(spread_evenly(improve_decoder, len(decoded.inputs)))
    weight = _KL / mean[0].numel()
    by_mean = by_latent + weight * mean
    by_log_std = (by_latent * deviation + weight * (std * std - 1)) * (raw == log_std)
    by_coded = torch.cat([by_mean, by_log_std], dim=-1)

    def improve_encoder(u: int) -> None:
        differentiate(coded, u, by_coded, into=vae.encoder_gradient)
        vae.encoder_adam.step(u, vae.encoder, rate)

    vae.encoder_adam.steps += 1
    spread_evenly(improve_encoder, len(coded.inputs))
    kl = 0.5 * (mean * mean + std * std - 1) - log_std
    return error.square().mean(dim=(1, 2)) + _KL * kl.mean(dim=(1, 2))
