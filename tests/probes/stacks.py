"""Small stacks of every algorithm, in a world of random data and a model of random networks."""

from dataclasses import fields, replace
from typing import Any

import torch

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.agents.loop import loop_state
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.schedule import LoopSettings
from mopo_cli.agents.world import World
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.capture import Recorder
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.stages.common.learner import learner_settings
from mopo_cli.tasks.termination import never

OBS, ACT, ROWS = 4, 2, 120
FLAGS = {"hidden": "12", "layers": "2", "batch_size": "20"}
_SPECIAL: dict[str, dict[str, str]] = {
    "bear": {"warmup_steps": "8", "behaviour_hidden": "10"},
    "brac-p": {"behaviour_steps": "8", "warmup_steps": "8"},
    "brac-v": {"behaviour_steps": "8", "warmup_steps": "5", "divergence": "mmd"},
    "drop": {"dice_pretrain": "8", "dice_steps": "2"},
    "mobile": {"mobile_samples": "6"},
    "td3-bc": {"policy_delay": "3"},
}


def _small(name: str) -> dict[str, str]:
    """Counts of hundreds and more, such as steps of a warm-up, are 8."""
    counts = (part.name for part in fields(load(name).settings) if isinstance(part.default, int) and part.default > 20)
    return dict.fromkeys(counts, "8")


OWN = {name: _small(name) | _SPECIAL.get(name, {}) for name in NAMES}
MEMBERS = (Member(0, "max-var", 0.5, 2, 0), Member(1, "max-var", 0.5, 2, 0))
SCHEDULE = LoopSettings(8, 8, 30, 2, batch_size=20, real_ratio=0.5)


def policy_settings(name: str, **flags: Any) -> Any:
    """The settings of `train-policy` for small stacks of this algorithm, changed by flags."""
    flags = FLAGS | OWN[name] | {flag: str(value) for flag, value in flags.items()}
    return resolve(TrainPolicy, method=name if name != "sac" else None, flags=flags).settings


def start(
    name: str,
    recorder: Recorder | None = None,
    schedule: LoopSettings = SCHEDULE,
    device: str = "cpu",
    precision: str = "fp32",
    members: tuple[Member, ...] = MEMBERS,
    act_dim: int = ACT,
    hidden: int = 12,
) -> tuple[Loop, World]:
    """A fresh loop and its world: two models, and logged episodes of twelve steps, every other one cut short."""
    algorithm = load(name)
    draw = stream(0, "test/data")
    observation, action = torch.randn(ROWS, OBS, generator=draw), 2 * torch.rand(ROWS, act_dim, generator=draw) - 1
    how = RolloutOptions(uncertainties=(*RELEASED.uncertainties, *algorithm.uncertainties))
    rows = RowLayout(OBS, act_dim, len(how.uncertainties))
    nothing = torch.zeros(ROWS, len(how.uncertainties))
    reward, following, step = observation[:, 0] * action[:, 0], observation.roll(-1, dims=0), torch.arange(ROWS)
    following[11::12] = 0.9 * observation[11::12]
    last = (step % 12 == 11) | (step == ROWS - 1)
    real = rows.pack(observation, action, reward, (step % 24 == 11).float(), following, nothing)
    layout = gaussian_layout(OBS + act_dim, OBS + 1, 10, 2)
    scaler = torch.zeros(OBS + act_dim, device=device), torch.ones(OBS + act_dim, device=device)
    models = []
    for m in range(2):
        flat = initial(layout, [stream(3 * m + k, "test/weights") for k in range(3)], truncated_normal, zeros)
        models.append(Ensemble(flat.to(device), layout, *scaler, OBS, (0, 2)))
    world = World(
        rows, real.to(device), observation.to(device), last.to(device), never, ensembles=tuple(models), options=how
    )
    if algorithm.learns_from == "real":
        schedule = replace(schedule, real_ratio=1.0)
    settings = policy_settings(name, update_precision=precision, hidden=hidden, batch_size=schedule.batch_size)
    learner = learner_settings(algorithm.settings, settings, act_dim)
    return start_loop(world, members, learner, schedule, algorithm, recorder), world


def assert_same(one: Loop, other: Loop) -> None:
    """All that a checkpoint holds is, and the rows of the pools."""
    (tensors, numbers), (others, other_numbers) = loop_state(one), loop_state(other)
    assert numbers == other_numbers and tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    for m, size in enumerate(one.pool.sizes):
        assert torch.equal(one.pool.rows[m, :size], other.pool.rows[m, :size])
