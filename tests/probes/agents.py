"""Agents some way into training and a batch for them: small, of any size, the same every time."""

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Learned, agent_state
from mopo_cli.agents.algorithms.sac import Sac, SacSettings, start_sac
from mopo_cli.engine.rows import Transition
from mopo_cli.engine.streams import stream

OBS, ACT, BATCH = 4, 2, 37
SETTINGS = SacSettings(
    hidden=16, layers=2, actor_lr=1e-3, critic_lr=2e-3, alpha_lr=5e-3, gamma=0.9, tau=0.05,
    target_entropy=-1.0, alpha_max=1.0, log_std_min=-3.0, log_std_max=1.0,
)  # fmt: skip


def normal(*shape: int, name: str = "x", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=stream(0, f"test/{name}"), dtype=dtype)


def make_batch(members: int, rows: int = BATCH, act_dim: int = ACT) -> tuple[Transition, Tensor, Tensor]:
    """A batch, the reward to learn from, which is not the batch's own, and the noise."""
    observation, following = normal(members, rows, OBS, name="s"), normal(members, rows, OBS, name="n")
    action, reward = torch.tanh(normal(members, rows, act_dim, name="a")), normal(members, rows, name="r")
    terminal = (normal(members, rows, name="t") > 0.5).float()
    batch = Transition(observation, action, reward + 100, terminal, following, torch.zeros(members, rows, 3))
    return batch, reward, normal(2, members, rows, act_dim, name="noise")


def make_sac(members: int = 2, settings: SacSettings = SETTINGS, act_dim: int = ACT) -> Sac:
    """Agents some way into training: targets differ from critics, temperatures from one and from each other."""
    sac = start_sac(OBS, act_dim, settings, list(range(members)), "cpu")
    sac.critic.target.flat.add_(0.1 * normal(*sac.critic.target.flat.shape, name="target"))
    sac.actor.flat.mul_(2)
    sac.log_alpha += torch.linspace(-1.0, -0.3, members)[:, None]
    return sac


def tensors(agent: Learned) -> dict[str, Tensor]:
    """All that a checkpoint holds of it, by name."""
    return agent_state(agent)[0]
