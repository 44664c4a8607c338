"""Chains of small operations: what is compiled is what they compute, and they are few launches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.fits import TINY, make_data
from probes.gpu import as_on_cuda, launches, not_fusing, record
from probes.stacks import start
from torch import Tensor

from mopo_cli.agents.loop import advance as advance_policies
from mopo_cli.agents.runs import Loop
from mopo_cli.dynamics.fit import start_fit
from mopo_cli.dynamics.training import advance
from mopo_cli.engine import fused
from mopo_cli.engine.capture import Recorder
from mopo_cli.engine.fused import _kind, compiled, fused_recorder, fusing, is_fusing

ALGORITHMS = ("sac", "mobile", "cql", "iql", "td3-bc", "brac-v")


def learned(name: str, recorder: Recorder | None) -> Loop | Any:
    """So many gradient steps of an algorithm, or of an ensemble ("fit"), that some are replays."""
    if name == "fit":
        fit = start_fit(make_data(), replace(TINY, hidden=12), (0, 7), recorder)
        advance(fit, 8)
        return fit
    loop, world = start(name, recorder)
    while loop.step < 24:
        advance_policies(loop, world)
    return loop


def counted(name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The launches of one recorded step."""
    counts = []

    def recorder(work: Callable[[], None]) -> Callable[[], object]:
        counts.append(launches(work, fuse=True))
        return work

    with as_on_cuda(monkeypatch):
        learned(name, recorder)
    return max(counts)


@pytest.mark.parametrize(("name", "most"), [("sac", 57), ("fit", 28)])
def test_a_step_is_few_launches(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.8 * most < counted(name, monkeypatch) <= most


@pytest.fixture(scope="module")
def compared() -> set[Any]:
    """The chains, and the kinds of arguments that they are compiled for, that are known to compute what they should."""
    return set()


@pytest.mark.parametrize("name", [*ALGORITHMS, "fit"])
def test_fused_steps_are_the_steps_but_for_rounding(
    name: str, monkeypatch: pytest.MonkeyPatch, compared: set[Any]
) -> None:
    """As the compiler's plainest backend computes what it has traced of each chain, all of it at once."""
    chains: dict[Any, tuple[Callable[..., Any], list[Any]]] = {}

    def plainly(function: Callable[..., Any], *arguments: Any) -> Any:
        key = function, tuple(_kind(argument) for argument in arguments)
        chains.setdefault(key, (function, [_copy(argument) for argument in arguments]))
        with not_fusing():
            return function(*arguments)

    monkeypatch.setattr(fused, "compiled", plainly)
    with as_on_cuda(monkeypatch):
        plain, replayed = learned(name, None), learned(name, fused_recorder(record))
    assert replayed.engine.why_eager is None and len(chains) >= 4 and not is_fusing()
    one, other = (loop.flat if name == "fit" else loop.agent.actor.flat for loop in (plain, replayed))
    assert 0 < (one - other).abs().max() < 1e-3
    for key in chains.keys() - compared:
        compared.add(key)
        function, arguments = chains[key]
        torch._dynamo.reset()
        again = [_copy(argument) for argument in arguments]
        result = function(*arguments)
        compiled_result = torch.compile(function, fullgraph=True, backend="aot_eager")(*again)
        pairs = zip(_tensors((result, *arguments)), _tensors((compiled_result, *again)), strict=True)
        for expected, tensor in pairs:
            torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-5, msg=function.__qualname__)


def _copy(argument: Any) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    if 0 in argument.stride():
        return argument.clone()
    return torch.empty_strided(argument.shape, argument.stride(), dtype=argument.dtype).copy_(argument)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, tuple) else []


def test_a_chain_is_compiled_once_for_shapes_and_not_for_each_number(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def compile(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        made.append(function.__code__)
        return function

    monkeypatch.setattr(torch, "compile", compile)

    def scaled(x: Tensor, factor: float, twice: bool) -> Tensor:
        return x * factor * (1 + twice)

    one, other = torch.ones(2, 3), torch.ones(3, 2).T
    for x, factor, twice in [(one, 2.0, False), (one, 3.0, False), (other, 3.0, False), (one, 3.0, True)]:
        assert torch.equal(compiled(scaled, x, factor, twice), scaled(x, factor, twice))
    assert len(made) == 3 and len({id(code) for code in made}) == 3


def test_chains_are_plain_functions_but_within_fusing() -> None:
    calls = []

    @fused.fused
    def chain(x: Tensor) -> Tensor:
        return x + 1

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        calls.append(function.__name__)
        return function(*arguments)

    chain(torch.ones(1))
    with pytest.raises(ValueError, match="stop"), fusing(call):
        chain(torch.ones(1))
        raise ValueError("stop")
    assert chain(torch.ones(1)) == 2 and calls == ["chain"]
