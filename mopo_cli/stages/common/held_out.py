"""The judge's share of a data set, on the device: what `evaluate --ope` judges by, and what all others learn from."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mopo_cli.data.held_out import judge_rows, judge_share
from mopo_cli.data.transitions import Bools, Transitions, episode_ends, episode_lengths, episode_starts
from mopo_cli.errors import InputError
from mopo_cli.evaluation.fitted_q import Log
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import Data
from mopo_cli.store.checkpoint import read_meta


def share_of(data: Data, wanted: float | None) -> float:
    """The share of these data's episodes that the judge has, see `data.held_out.judge_share`."""
    return judge_share(wanted, data.info.env_id, len(episode_lengths(data.transitions)))


def judge_share_of(path: Path) -> float:
    """The share that a model or policy file says it has not seen; 0 of one that says nothing."""
    share = (read_meta(path) or {}).get("judge_share", 0.0)
    return float(share) if isinstance(share, int | float) else 0.0


def share_beside_model(wanted: float | None, model: float) -> float:
    """The share for a policy that is trained in a model with a share; InputError where another one is wanted."""
    if wanted is not None and wanted != model:
        raise InputError(
            f"The model was trained with --judge-share {model:g}, not {wanted:g}.",
            hint=f"--judge-share {model:g}, or mopo train-model --judge-share {wanted:g}",
        )
    return model


def without_judge(data: Data, share: float, report: Report) -> Data:
    """What a model or a policy learns from: all episodes but the judge's."""
    if not share:
        return data
    held = judge_rows(data.transitions, share)
    ends = episode_ends(data.transitions)
    report.say(
        f"{int(held[ends].sum()):,} of {len(ends):,} episodes are kept for evaluate --ope (--judge-share {share:g})"
    )
    return kept(data, ~held)


def log_of(data: Data) -> Log:
    """The data as critics learn from them."""
    starts = torch.zeros(len(data.reward), dtype=torch.int64)
    starts[torch.from_numpy(episode_starts(data.transitions))] = 1
    columns = data.observation, data.action, data.reward, data.terminal, data.next_observation
    return Log(*columns, (starts.cumsum(dim=0) - 1).to(data.reward.device))


def kept(data: Data, rows: Bools) -> Data:
    """Of the data those rows, bool `[N]`."""
    some = data.transitions
    columns = {name: column[rows] for name, column in vars(some).items() if name != "infos"}
    transitions = Transitions(**columns, infos={name: column[rows] for name, column in some.infos.items()})
    chosen = torch.from_numpy(np.flatnonzero(rows)).to(data.observation.device)
    tensors: dict[str, Any] = {
        field.name: value[chosen] for field in fields(data) if isinstance(value := getattr(data, field.name), Tensor)
    }
    return replace(data, transitions=transitions, **tensors)
