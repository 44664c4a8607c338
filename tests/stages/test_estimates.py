"""What stages take in memory: as much as what they hold."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from probes.stacks import ACT, FLAGS, OBS, OWN, start
from probes.stacks import ROWS as ROWS_OF_DATA

from mopo_cli.agents.algorithm import Work
from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.agents.loop import trained_state
from mopo_cli.agents.replay import Pool
from mopo_cli.agents.runs import Loop
from mopo_cli.config.learners import with_algorithm
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.data.generate import log_steps
from mopo_cli.data.spaces import spaces_of
from mopo_cli.dynamics.fit import start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance
from mopo_cli.engine.rows import RowLayout
from mopo_cli.evaluation.play import make_environments
from mopo_cli.nets.stacked import Layout
from mopo_cli.stages.common.learner import learner_settings
from mopo_cli.stages.common.memory_estimates import (
    behaviour_bytes,
    environment_bytes,
    log_bytes,
    model_bytes,
    policy_bytes,
)
from mopo_cli.stages.train_model import fit_settings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ROWS = RowLayout(11, 3, 3)
POLICY = TrainPolicy(rollout_batch=700, pool_epochs=3)


def needs(settings: TrainPolicy, members: int = 3, processes: int = 0, **how: Any) -> dict[str, int]:
    return policy_bytes(settings, ROWS, 1000, how.pop("device", CPU), processes, 5, members, **how)


def test_pools_take_what_is_said() -> None:
    pool = Pool([700 * 3 * h for h in (5, 2, 1)], ROWS.width)
    assert needs(POLICY)["pools"] == pool.rows.numel() * pool.rows.element_size()


def test_every_process_makes_rollouts_and_takes_steps_of_its_own() -> None:
    alone, together = needs(POLICY, 6), needs(POLICY, 6, 3)
    assert together["a rollout step"] == 3 * alone["a rollout step"]
    assert 2 * together["gradient steps"] == alone["gradient steps"]
    assert together["pools"] == alone["pools"] and together["networks"] > alone["networks"]


def test_what_imagines_nothing_has_neither_pools_nor_rollouts() -> None:
    assert list(needs(TrainPolicy(real_ratio=1.0))) == ["data", "networks", "gradient steps"]


def test_a_batch_of_a_block_is_counted() -> None:
    """A hundred steps are drawn at once, twenty where rollouts are due that often."""
    settings = TrainPolicy(real_ratio=1.0, batch_size=10_000, hidden=1)
    often = settings.model_copy(update={"rollout_every": 20})
    difference = needs(settings, 1)["gradient steps"] - needs(often, 1)["gradient steps"]
    assert difference == 80 * torch.empty(10_000, ROWS.width).nbytes


@pytest.mark.parametrize("name", NAMES)
def test_an_algorithm_tells_all_its_networks(name: str) -> None:
    """Parameters, and of those that are learned both moments, as a checkpoint has them."""
    loop, _ = start(name)
    flags = FLAGS | OWN.get(name, {})
    settings = resolve(TrainPolicy, method=None if name == "sac" else name, flags=flags).settings
    learner = learner_settings(load(name).settings, settings, ACT)
    networks = load(name).networks(learner, Work(OBS, ACT, 20, 10, ROWS_OF_DATA, elites=2))
    total = sum(each.count * (3 if each.learned else 1) * padded(each.sizes) for each in networks)
    assert numbers_of_networks(loop) == total * len(loop.members)
    assert sum(each.evaluations for each in networks) > 0


def numbers_of_networks(loop: Loop) -> int:
    """All that an agent learns but single numbers, and what it notes of every row of the data."""
    tensors, _ = trained_state(loop)
    notes = ("sums", "returns", "weights")
    return sum(
        tensor.numel()
        for name, tensor in tensors.items()
        if name not in notes and tensor.dim() > 1 and tensor.shape[1] > 1
    )


def padded(sizes: tuple[int, ...]) -> int:
    """The floats of a perceptron's row of parameters, every matrix of which begins on an aligned address."""
    shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (1, o))]
    return Layout(tuple((str(place), shape) for place, shape in enumerate(shapes))).size


@pytest.mark.parametrize(
    ("algorithm", "setting", "real_ratio"),
    [("cql", "actions", 1.0), ("combo", "actions", 0.5), ("mobile", "mobile_samples", 0.05)],
)
def test_sampled_actions_grow_with_their_number(algorithm: str, setting: str, real_ratio: float) -> None:
    kind = with_algorithm(TrainPolicy, algorithm)
    few, many = (kind(algorithm=algorithm, real_ratio=real_ratio, **{setting: n}) for n in (1000, 100_000))
    grown = needs(many, 1)["gradient steps"] / needs(few, 1)["gradient steps"]
    assert 50 < grown <= 100
    # On a GPU all of them go through every layer at once.
    assert needs(few, 1, device=CUDA)["gradient steps"] > 3 * needs(few, 1)["gradient steps"]


def test_ensembles_take_what_is_said() -> None:
    settings, rows = TrainModel(networks=3, hidden=20, layers=2, weight_decay=(0, 0, 0), seeds=2), 1000
    needed = model_bytes(settings, rows, 6, 5, CPU)
    columns = torch.randn(rows, 4), torch.randn(rows, 2), torch.randn(rows), torch.randn(rows, 4)
    data = Examples.of(*columns)
    fit = start_fit(data, fit_settings(settings), (0, 1))
    advance(fit, 1)
    assert fit.order is not None
    permuted = sum(part.numel() * part.element_size() for split in fit.splits for part in (split.train, split.holdout))
    assert needed["orders"] == permuted + fit.order.nbytes + 8 * fit.order.shape[1]
    views = 6 * 4 * 8000
    assert needed["networks"] == 7 * fit.flat.nbytes + views
    assert needed["scaling"] == 2 * data.inputs.double().nbytes


def test_a_batch_of_a_model_that_is_longer_than_its_data_counts_whole() -> None:
    small, large = (model_bytes(TrainModel(batch_size=batch), 1000, 14, 12, CPU) for batch in (10**6, 10**7))
    assert large["gradient steps"] == 10 * small["gradient steps"]
    assert large["gradient steps"] > 10**7 * 2 * 4 * 200 * 4  # what four layers of 200 say, before and after


def test_logging_takes_what_is_logged() -> None:
    (environment,) = make_environments("InvertedPendulum-v5", 1)
    spaces = spaces_of("InvertedPendulum-v5", environment)
    logged = log_steps(environment, spaces, 50, 0, lambda _: spaces.action_low, lambda _: None)
    columns = [value for name, value in vars(logged).items() if name != "infos"]
    infos = 50 * 2 * 4  # two numbers of each step, wherever they are told
    assert log_bytes(50, 4, 1) == {"transitions": sum(column.nbytes for column in columns) + infos}
    row = RowLayout(4, 1, 0).width * 4
    assert behaviour_bytes(50, 4, 1) == {"replay": 50 * (row + 2 * 4 + 1)}


def test_a_simulator_takes_more_than_a_task_of_a_few_numbers() -> None:
    for simulated in ("Hopper-v5", "Hopper-v4", "mopo/HalfCheetahJump-v0"):
        assert environment_bytes(simulated, 10) == {"environments": 6_000_000}
    for other in ("Pendulum-v1", "mopo/HIVTreatment-v0", "no-such-environment", "os:Pendulum-v1"):
        assert environment_bytes(other, 10) == {"environments": 50_000}


def test_no_setting_is_too_large_to_be_reckoned_with() -> None:
    most = 2**63 - 1
    large = POLICY.model_copy(update=dict.fromkeys(("batch_size", "hidden", "rollout_batch", "pool_epochs"), most))
    assert sum(needs(large, most).values()) > 10**50
    assert sum(model_bytes(TrainModel(networks=most, hidden=most), most, 14, 12, CPU).values()) > 10**50
