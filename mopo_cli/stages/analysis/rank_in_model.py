"""What rank learns of a policy by letting it act in the model, and by comparing its actions with the data's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.config.schema import Ablate, Imagination
from mopo_cli.dynamics.penalties import penalty_weights
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.ranking import Evidence
from mopo_cli.stages.analysis.model_returns import STARTS, draw_starts, greedy_returns, longest_episode
from mopo_cli.stages.common.inputs import Data
from mopo_cli.stages.common.open_world import OpenWorld
from mopo_cli.stages.common.policies import open_policy
from mopo_cli.store.documents import EPOCH, read_lines

PENALTY = "max-var"
_SEED = 0  # of the start states and of the rows that actions are compared in
_ROWS = 10_000  # rows of the data in which actions are compared


def common_lam(settings: Ablate) -> float:
    """The lambda that all cells are compared with: the ablation's if it has only one, else 1."""
    return settings.lam[0] if len(settings.lam) == 1 else 1.0


def model_settings(settings: Ablate) -> dict[str, Any]:
    """The settings that all cells are compared with: penalty and lambda, number of starts, how the model imagines."""
    shared = {field: getattr(settings, field) for field in (*Imagination.model_fields, "gamma")}
    return shared | {"penalty": PENALTY, "lam": common_lam(settings), "starts": STARTS, "seed": _SEED}


@dataclass(frozen=True)
class ModelJudge:
    """Looks at policies in an open world, all from the same start states, for at most ``horizon`` steps."""

    opened: OpenWorld
    settings: Ablate
    start: torch.Tensor
    horizon: int

    def evidence(self, folder: Path, seed: int) -> Evidence:
        """The evidence on the policy of a seed, whose files lie in ``folder``."""
        actor, _ = open_policy(folder / "policy.safetensors", self.start.device)
        returns = greedy_returns(self.opened, actor, seed, self.start, self.horizon, self.settings.gamma)
        names = self.opened.world.how.uncertainties
        weights = penalty_weights(PENALTY, common_lam(self.settings), names)
        return Evidence(
            read_lines(folder / "metrics.jsonl", EPOCH)[-1],
            float(returns.discounted.penalised(weights).mean()),
            float(returns.discounted.reward.mean()),
            float(returns.total.uncertainty[:, names.index(PENALTY)].sum()) / max(int(returns.length.sum()), 1),
            _action_distance(actor, self.opened.data),
        )


def model_judge(opened: OpenWorld, settings: Ablate) -> ModelJudge:
    """The judge of an ablation's cells."""
    return ModelJudge(opened, settings, draw_starts(opened.data, _SEED), longest_episode(opened.data))


def _action_distance(actor: Actor, data: Data) -> float:
    device = data.observation.device
    drawn = torch.randint(len(data.observation), (_ROWS,), generator=stream(_SEED, "rank/rows")).to(device)
    return float((actor.greedy(data.observation[drawn]) - data.action[drawn]).double().square().mean())
