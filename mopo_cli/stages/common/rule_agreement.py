"""Whether a termination rule ends the task where the log says that it ended."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mopo_cli.data.transitions import Bools, DatasetInfo, Transitions, normalise_actions, steps_before

if TYPE_CHECKING:
    from mopo_cli.dynamics.branched_rollouts import TerminationRule

_PART = 1 << 16  # rows at a time
_MISSED = 0.05  # of the log's ends


def agreement(transitions: Transitions, info: DatasetInfo, rule: "TerminationRule | None") -> dict[str, Any]:
    """How a rule, as it ends rollouts, and the stored terminals agree, row by row; None: nothing ends them.

    ``terminals`` are stored, ``reproduced`` is the share of them that the rule finds in the next observation
    (None where there are none, or the log does not hold their next states); ``false_alarms`` are rows that the
    rule ends and the log does not.
    """
    stored = transitions.terminals
    ends = np.zeros_like(stored) if rule is None else _ends(transitions, info, rule)
    comparable = info.terminal_next_known and stored.any()
    return {
        "rule": info.termination,
        "terminals": int(stored.sum()),
        "reproduced": float(ends[stored].mean()) if comparable else None,
        "false_alarms": int((ends & ~stored).sum()),
        "first_false_alarm": int((ends & ~stored).argmax()) if (ends & ~stored).any() else None,
    }


def _ends(transitions: Transitions, info: DatasetInfo, rule: "TerminationRule") -> Bools:
    import torch

    actions = normalise_actions(transitions.actions, info)
    columns = [torch.from_numpy(c) for c in (transitions.observations, actions, transitions.next_observations)]
    if getattr(rule, "uses_step", False):
        columns.append(torch.from_numpy(steps_before(transitions) + 1))
    parts = [rule(*(column[i : i + _PART] for column in columns)) for i in range(0, len(transitions), _PART)]
    return torch.cat(parts).numpy()


def knows_ends(transitions: Transitions, info: DatasetInfo, rule: "TerminationRule") -> bool:
    """Whether the rule is wrong in no more rows than one for twenty ends of the log.

    Where the log does not hold the states that its terminals led to, only that there is a rule, and in how many other
    rows it ends the task.
    """
    agreed = agreement(transitions, info, rule)
    ends, wrong = agreed["terminals"], agreed["false_alarms"]
    if ends and agreed["reproduced"] is None and info.termination == "none":
        return False
    wrong += 0 if agreed["reproduced"] is None else round((1 - agreed["reproduced"]) * ends)
    return bool(wrong <= _MISSED * max(ends, 1))
