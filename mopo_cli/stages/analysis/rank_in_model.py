"""What rank learns of a policy by letting it act in the model, and by comparing its actions with the data's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mopo_cli.config.schema import Ablate, Imagination
from mopo_cli.dynamics.penalties import penalty_weights
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.ranking import Evidence
from mopo_cli.stages.analysis.model_returns import STARTS, draw_starts, greedy_returns
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


def model_judge(opened: OpenWorld, settings: Ablate, horizon: int) -> Callable[[Path, int], Evidence]:
    """Gives the evidence on the policy of a seed whose files lie in a folder.

    All policies act in an open world from the same start states, for at most ``horizon`` steps.
    """
    data, names = opened.data, opened.world.how.uncertainties
    start, weights = draw_starts(data, _SEED), penalty_weights(PENALTY, common_lam(settings), names)
    drawn = torch.randint(len(data.observation), (_ROWS,), generator=stream(_SEED, "rank/rows")).to(start.device)

    def evidence(folder: Path, seed: int) -> Evidence:
        actor, _ = open_policy(folder / "policy.safetensors", start.device)
        returns = greedy_returns(opened, actor, seed, start, horizon, settings.gamma)
        distance = actor.greedy(data.observation[drawn]) - data.action[drawn]
        return Evidence(
            read_lines(folder / "metrics.jsonl", EPOCH)[-1],
            float(returns.discounted.penalised(weights).mean()),
            float(returns.discounted.reward.mean()),
            float(returns.total.uncertainty[:, names.index(PENALTY)].sum()) / max(int(returns.length.sum()), 1),
            float(distance.double().square().mean()),
        )

    return evidence
