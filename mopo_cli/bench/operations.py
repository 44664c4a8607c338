"""How many floating-point operations the matrix products of the stages' inner loops are."""

from mopo_cli.agents.algorithm import Work
from mopo_cli.agents.algorithms import load
from mopo_cli.config.schema import PolicyTraining, TrainModel
from mopo_cli.nets.flops import mlp_flops
from mopo_cli.stages.common.learner import learner_settings, loop_settings

ELITES = 5
"""Networks of an ensemble that generate, where it has as many."""


def network_flops(model: TrainModel, obs_dim: int, act_dim: int) -> int:
    """One row through one network of the ensemble: hidden layers and both heads."""
    hidden = (model.hidden,) * model.layers
    return mlp_flops((obs_dim + act_dim, *hidden)) + 2 * mlp_flops((model.hidden, obs_dim + 1))


def model_step_flops(model: TrainModel, obs_dim: int, act_dim: int) -> int:
    """One gradient step of one ensemble."""
    first = mlp_flops((obs_dim + act_dim, model.hidden))
    return model.networks * model.batch_size * (3 * network_flops(model, obs_dim, act_dim) - first)


def imagined_flops(model: TrainModel, policy: PolicyTraining, obs_dim: int, act_dim: int) -> int:
    """One generated transition: the policy's action, and a prediction of every network."""
    actor = mlp_flops((obs_dim, *(policy.hidden,) * policy.layers, 2 * act_dim))
    return actor + model.networks * network_flops(model, obs_dim, act_dim)


def update_flops(model: TrainModel, policy: PolicyTraining, obs_dim: int, act_dim: int) -> int:
    """One gradient step of one agent."""
    algorithm = load(policy.algorithm)
    work = _work(model, policy, obs_dim, act_dim, 0)
    return algorithm.operations(learner_settings(algorithm.settings, policy, act_dim), work)


def refresh_flops(model: TrainModel, policy: PolicyTraining, obs_dim: int, act_dim: int, rows: int) -> int:
    """What the algorithm of an agent does before each rollout, with so many rows of data."""
    algorithm = load(policy.algorithm)
    work = _work(model, policy, obs_dim, act_dim, rows)
    return algorithm.refresh_operations(learner_settings(algorithm.settings, policy, act_dim), work)


def _work(model: TrainModel, policy: PolicyTraining, obs_dim: int, act_dim: int, rows: int) -> Work:
    loop, network = loop_settings(policy), network_flops(model, obs_dim, act_dim)
    return Work(obs_dim, act_dim, loop.batch_size, loop.real_rows, rows, network, min(model.networks, ELITES))
