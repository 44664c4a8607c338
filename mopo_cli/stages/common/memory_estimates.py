"""How many bytes of memory stages take with their settings, estimated without allocating anything.

Where it is uncertain, the estimate is low rather than high: what fits must not be refused. All numbers are Python's, so
that no setting is too large to compute with.
"""

import torch

from mopo_cli.agents.algorithm import Work
from mopo_cli.agents.algorithms import load
from mopo_cli.config.schema import PolicyTraining, Rollout, TrainModel
from mopo_cli.engine.parallel import thread_count
from mopo_cli.engine.rows import RowLayout
from mopo_cli.evaluation.play import is_simulated
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.stages.common.learner import learner_settings, loop_settings

Needed = dict[str, int]
"""Bytes by what takes them."""

ELITES = 5
"""Networks of an ensemble that generate, before elites are chosen."""

_FLOAT, _DOUBLE, _INDEX = 4, 8, 8
# A rollout step holds its rows a few times over: as columns, packed, and those that go on.
_STEP_COPIES = 4
# The data are held as columns and as packed rows.
_DATA_COPIES = 2
# Parameters, their gradient, two moments, the best, and what is made of them in passing.
_MODEL_COPIES = 7
# Parameters, their gradient and two moments.
_LEARNED_COPIES = 4
# Steps of a model whose batches are gathered at once, see `dynamics.training`.
_GATHERED = 16
# What Python keeps of a matrix, its bias, their gradients and moments.
_VIEWS = 8_000
# Measured: a MuJoCo simulator takes 0.6 to 1.2 MB, a task that is a few numbers 5 kB.
_SIMULATOR, _TASK = 600_000, 5_000


def policy_bytes(
    settings: PolicyTraining,
    rows: RowLayout,
    data_rows: int,
    device: torch.device,
    processes: int,
    horizon: int,
    members: int,
    elites: int = ELITES,
) -> Needed:
    """What training a stack of so many ``members`` on so many rows of data takes.

    They imagine at most ``horizon`` steps, and are trained by so many ``processes``, 0: by this one.
    """
    algorithm, schedule = load(settings.algorithm), loop_settings(settings)
    cuda, batch = device.type == "cuda", settings.batch_size
    work = Work(rows.obs_dim, rows.act_dim, batch, schedule.real_rows, data_rows, elites, at_once=cuda)
    learner, row = learner_settings(algorithm.settings, settings, rows.act_dim), rows.width * _FLOAT
    networks = algorithm.networks(learner, work)
    needed = {"data": _DATA_COPIES * data_rows * row}
    if settings.needs_model:
        # All pools of a stack are as large as the largest.
        needed["pools"] = members * horizon * settings.rollout_batch * settings.pool_epochs * row
        needed["a rollout step"] = max(1, processes) * _STEP_COPIES * settings.rollout_batch * row
    floats = sum(each.count * each.parameters * (_LEARNED_COPIES if each.learned else 1) for each in networks)
    matrices = sum(each.count * (len(each.sizes) - 1) for each in networks)
    # A crew has every member in the process that it is for, in those that train it, and in memory that they share.
    needed["networks"] = members * ((1 + 2 * (processes > 0)) * floats * _FLOAT + matrices * _VIEWS)
    # All batches of a block are drawn at once; where some rows are the model's, both kinds are put together.
    drawn = schedule.block * batch * row
    joined = drawn if schedule.real_rows < batch else 0
    activations = batch * sum(each.count * each.evaluations * sum(each.sizes) for each in networks)
    step = _FLOAT * (activations + algorithm.sampled_numbers(learner, work))
    needed["gradient steps"] = (processes or members) * (drawn + max(joined, step))
    return needed


def model_bytes(settings: TrainModel, rows: int, inputs: int, outputs: int, device: torch.device) -> Needed:
    """What training a stack of ensembles on so many loaded rows takes."""
    seeds, hidden, batch = settings.seed_count, settings.hidden, settings.batch_size
    layout = gaussian_layout(inputs, outputs, hidden, settings.layers)
    networks = seeds * settings.networks
    trained = max(1, rows - max(1, min(int(settings.holdout_fraction * rows), settings.holdout_max)))
    shown = -(-trained // batch) * batch
    # Of a batch: inputs and targets, what layers say before and after their activation, what both heads make of it.
    width = inputs + outputs + 2 * settings.layers * hidden + 6 * outputs
    at_once = networks if device.type == "cuda" else min(thread_count(), networks)
    return {
        "networks": networks * (_MODEL_COPIES * layout.size * _FLOAT + (settings.layers + 2) * _VIEWS),
        # A permutation per seed, and per network the rows of an epoch.
        "orders": seeds * rows * _INDEX + networks * shown * _FLOAT + shown * _INDEX,
        "gradient steps": _FLOAT
        * (networks * min(_GATHERED * batch, shown) * (inputs + outputs) + at_once * batch * width),
        # Means and deviations are those of doubles.
        "scaling": 2 * rows * inputs * _DOUBLE,
    }


def rollout_bytes(settings: Rollout) -> Needed:
    """What rollouts to a file take, whose rows are streamed there."""
    return {"start states": settings.batch * _INDEX}


def log_bytes(transitions: int, obs_dim: int, act_dim: int) -> Needed:
    """What logging so many steps in an environment takes."""
    floats, flags = 2 * obs_dim + act_dim + 1 + 2, 2
    return {"transitions": transitions * (floats * _FLOAT + flags)}


def behaviour_bytes(steps: int, obs_dim: int, act_dim: int) -> Needed:
    """What a behaviour that may train for so many steps takes: its replay, and what is kept beside it."""
    row = RowLayout(obs_dim, act_dim, 0).width * _FLOAT
    return {"replay": steps * (row + 2 * _FLOAT + 1)}


def environment_bytes(env_id: str, episodes: int) -> Needed:
    """What the environments for so many episodes side by side take."""
    return {"environments": episodes * (_SIMULATOR if is_simulated(env_id) else _TASK)}
