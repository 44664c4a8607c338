"""Floating-point operations by count: two for every multiply-add of a matrix product, nothing for all else."""

from itertools import pairwise

from mopo_cli.config.schema import PolicyTraining, TrainModel


def mlp_flops(sizes: tuple[int, ...]) -> int:
    """The forward products of one row through a perceptron."""
    return 2 * sum(rows * columns for rows, columns in pairwise(sizes))


def backward_flops(sizes: tuple[int, ...]) -> int:
    """The gradients of all weights, and of the inputs of all layers but the first, whose inputs are data.

    Back through a single output goes no product, but each weight times a number.
    """
    return 2 * mlp_flops(sizes) - mlp_flops(sizes[:2]) - (mlp_flops(sizes[-2:]) if sizes[-1] == 1 else 0)


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
    return _actor(policy, obs_dim, act_dim) + model.networks * network_flops(model, obs_dim, act_dim)


def update_flops(policy: PolicyTraining, obs_dim: int, act_dim: int) -> int:
    """One gradient step of one agent, as `agents.sac.update` takes it.

    The target needs the actor and two critics forward; the critics' loss both critics forward and backward; the
    actor's loss the actor forward and backward, and both critics forward and through to the action.
    """
    hidden = (policy.hidden,) * policy.layers
    actor, critic = (obs_dim, *hidden, 2 * act_dim), (obs_dim + act_dim, *hidden, 1)
    target = mlp_flops(actor) + 2 * mlp_flops(critic)
    critic_loss = 2 * (mlp_flops(critic) + backward_flops(critic))
    to_action = backward_flops(critic) - mlp_flops(critic) + mlp_flops((act_dim, policy.hidden))
    actor_loss = mlp_flops(actor) + backward_flops(actor) + 2 * (mlp_flops(critic) + to_action)
    return policy.batch_size * (target + critic_loss + actor_loss)


def _actor(policy: PolicyTraining, obs_dim: int, act_dim: int) -> int:
    return mlp_flops((obs_dim, *(policy.hidden,) * policy.layers, 2 * act_dim))
