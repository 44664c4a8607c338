"""Rewards given by an expression over a step, in place of those in the log."""

from dataclasses import replace

import numpy as np
import torch

from mopo_cli.data.checks import Check
from mopo_cli.data.restated import in_user_units
from mopo_cli.data.transitions import DatasetInfo, Transitions, normalise_actions, steps_before
from mopo_cli.tasks.expression import expression_reward, parse_reward


def give_reward(transitions: Transitions, info: DatasetInfo, text: str) -> tuple[Transitions, DatasetInfo]:
    """The data with the rewards that the expression `text` gives; `info.reward` keeps it, with numbers for names.

    `info.doubts` then say how far it is from the rewards in the log, where these are not all 0, and where it looks at
    next states that the log does not hold. InputError where the expression has a fault or does not fit the columns.
    """
    expression = parse_reward(text, info.names)
    expression.check_width(transitions.obs_dim, transitions.act_dim)
    rule = in_user_units(expression_reward(expression.text, (info.action_low, info.action_high)), info)
    actions, steps = normalise_actions(transitions.actions, info), steps_before(transitions) + 1
    columns = transitions.observations, actions, transitions.next_observations, steps
    observation, action, following, step = map(torch.from_numpy, columns)
    rewards = rule(observation, action, following, step).numpy()
    info = replace(info, reward=expression.text, source=f"{info.source}; reward = {expression.text}")
    checks = list(info.doubts)
    if transitions.rewards.any():
        off = np.abs(rewards.astype(np.float64) - transitions.rewards)
        row = int(off.argmax())
        size = float(np.abs(transitions.rewards).mean())
        if off[row] > 1e-4 * max(size, 1e-6):
            warning = (
                f"{info.dataset_id}: the given reward differs from that of the log by {off.mean():.4g} on average, "
                f"at most by {off[row]:.4g} (row {row}: {rewards[row]:.6g}, not {transitions.rewards[row]:.6g})."
            )
            checks.append(Check("rewards", "as given", row=row, warning=warning))
    if not info.terminal_next_known and any(vector == "next_obs" for vector, _ in expression.entries):
        count = int(transitions.terminals.sum())
        warning = (
            f"{info.dataset_id}: the reward looks at next_obs, but the log does not hold the states after its {count} "
            "terminals: there it is computed from the state before."
        )
        checks.append(Check("rewards", "as given", warning=warning))
    return replace(transitions, rewards=rewards.astype(np.float32)), replace(info, doubts=tuple(checks))
