"""TensorFloat-32: a GPU is told to multiply in it around what was asked for, and around nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from probes.fits import TINY, make_data
from probes.stacks import ACT, OBS, SCHEDULE, start
from torch.utils._python_dispatch import TorchDispatchMode

from mopo_cli.agents.algorithms import NAMES
from mopo_cli.agents.algorithms.mobile import inconsistency
from mopo_cli.agents.loop import advance, loop_state
from mopo_cli.dynamics.branched_rollouts import sample_step
from mopo_cli.dynamics.fit import start_fit
from mopo_cli.dynamics.training import advance as advance_fit
from mopo_cli.engine.capture import cuda_graph
from mopo_cli.engine.streams import stream
from mopo_cli.errors import SettingsError
from mopo_cli.nets.products import rounding
from mopo_cli.stages.common.device import can_multiply, check_precision

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "_linear_pointwise")


def is_allowed() -> bool:
    return bool(torch.backends.cuda.matmul.allow_tf32)


class Allowed(TorchDispatchMode):
    """Of every matrix product, whether TensorFloat-32 was allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.of: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.split("::")[1] in PRODUCTS:
            self.of.append(is_allowed())
        return func(*args, **(kwargs or {}))


@contextmanager
def watching() -> Iterator[list[bool]]:
    assert not is_allowed()
    with Allowed() as mode:
        yield mode.of
    assert not is_allowed()


def test_it_is_allowed_for_as_long_as_is_said() -> None:
    for allowed in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = allowed
        try:
            with rounding("tf32"):
                assert is_allowed()
                with rounding("fp32"):
                    assert not is_allowed()
                with pytest.raises(KeyError), rounding("bf16"):
                    assert not is_allowed()
                    raise KeyError
                assert is_allowed()
            assert is_allowed() == allowed
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False


# Two ask the model while they learn.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mobile", "drop")])
def test_gradient_steps_are_taken_in_it(name: str) -> None:
    loop, world = start(name, precision="tf32")
    with watching() as steps:
        while loop.step < 0:
            advance(loop, world)
        loop.step, loop.pool.sizes = 8, [1, 1]
        # Without rollouts and what comes before them.
        loop.settings = replace(SCHEDULE, rollout_every=1000, real_ratio=loop.settings.real_ratio)
        advance(loop, world)
    assert steps and all(steps)


def test_a_model_that_learners_ask_is_asked_in_a_precision_of_its_own() -> None:
    loop, _ = start("mobile", precision="tf32")
    agent: Any = loop.agent
    observation, action = torch.randn(2, 5, OBS), torch.randn(2, 5, ACT)
    with watching() as products, rounding("tf32"):
        inconsistency(agent, observation, action, torch.randn(2, 2, 3, 5, OBS + ACT))
    assert not products[0] and products[-1], "first the model's, last the critics'"
    for precision in ("fp32", "tf32"):
        for ask in (agent.elites[0].predict, partial(agent.elites[0].predict_by, torch.zeros(5))):
            with watching() as products, rounding("tf32" if precision == "fp32" else "fp32"):
                ask(observation[0], action[0], precision)
            assert products and all(one == (precision == "tf32") for one in products)


@pytest.mark.parametrize("uncertain", [True, False])
def test_rollouts_ask_the_model_in_theirs(uncertain: bool) -> None:
    loop, world = start("sac")
    how = replace(world.options, needs_uncertainties=uncertain, precision="tf32")
    observation = world.start[:7]
    with watching() as products:
        sample_step(world.ensembles[0], observation, torch.zeros(7, ACT), stream(0, "test"), how)
        assert products and all(products)
        before = len(products)
        loop.agent.policy(0).sample(observation, stream(0, "test"))
        assert len(products) > before and not any(products[before:])


def test_the_model_is_fitted_in_it() -> None:
    for precision in ("fp32", "tf32"):
        fit = start_fit(make_data(200), replace(TINY, update_precision=precision), (0,))
        with watching() as products:
            advance_fit(fit, 3)
        assert products and all(one == (precision == "tf32") for one in products)


def test_what_it_is_on_a_cpu_is_float32() -> None:
    states = []
    for precision in ("fp32", "tf32"):
        loop, world = start("sac", precision=precision)
        advance(loop, world)
        states.append(loop_state(loop)[0])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_device_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    with pytest.raises(SettingsError, match=r"--update-precision tf32 needs an NVIDIA GPU .* and this is cpu"):
        check_precision("--update-precision", "tf32", cpu)
    for precision in ("fp32", "bf16"):
        check_precision("--update-precision", precision, cpu)
    for capability, able in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, result=capability: result)
        assert can_multiply("tf32", gpu) == able


@pytest.mark.parametrize("stage", ["train-model", "train-policy", "rollout", "ablate"])
def test_the_command_says_so(stage: str, tiny_run: Any, mopo: Any) -> None:
    flag = "--rollout-precision" if stage == "rollout" else "--update-precision"
    name = {"ablate": " --method mopo", "train-policy": " --name new"}.get(stage, "")
    outcome = mopo(f"{stage} --config tiny.yaml --device cpu {flag} tf32{name}")
    assert outcome.code == 3 and f"{flag} tf32 needs an NVIDIA GPU" in outcome.err


@pytest.mark.gpu
def test_on_a_gpu_it_is_near_float32_and_graphs_replay_it() -> None:
    results = {}
    for precision in ("fp32", "tf32"):
        for recorder in (None, cuda_graph):
            loop, world = start("sac", recorder, device="cuda", precision=precision)
            for _ in range(3):
                advance(loop, world)
            assert loop.engine.why_eager is None
            results[precision, recorder is None] = loop_state(loop)[0]["actor"]
    off = (results["tf32", True] - results["fp32", True]).norm() / results["fp32", True].norm()
    assert 0 < off < 0.05
    torch.testing.assert_close(results["tf32", True], results["tf32", False], rtol=1e-3, atol=1e-4)
