"""The stand-in for a GPU: what a GPU refuses is refused, and what it does not is done."""

from collections.abc import Callable

import pytest
import torch
from probes.cuda_kernels import has_kernel
from probes.fake_cuda import FakeCuda, fake_cuda
from probes.gpu import off_device
from torch import Tensor

from mopo_cli.engine.capture import Changes, Engine, cuda_graph
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam


def taken(step: Callable[[Tensor], object]) -> tuple[Engine, Tensor]:
    """An engine that took a step seven times, and the tensor that the step changes."""
    x, engine = torch.tensor([1.0, -2.0, 3.0], device="cuda"), Engine(cuda_graph)

    def restore(state: tuple[dict[str, Tensor], list[int]]) -> None:
        x.copy_(state[0]["x"])

    def once(_draws: Draws) -> None:
        step(x)

    for _ in range(7):
        engine.take(once, (), Draws(()), ("step",), Changes(lambda: ({"x": x}, []), restore))
    return engine, x


def test_a_step_that_stays_on_the_device_is_recorded_and_replayed() -> None:
    with fake_cuda() as cuda:
        engine, x = taken(lambda x: x.mul_(2).add_(torch.where(x > 0, 1.0, x).sum()))
        assert engine.why_eager is None and cuda.recorded == 1 and x.is_cuda and x.device == torch.device("cuda:0")
        numbers, y = x.tolist(), torch.tensor([1.0, -2.0, 3.0])
    for _ in range(7):
        y.mul_(2).add_(torch.where(y > 0, 1.0, y).sum())
    assert numbers == y.tolist()


CPU = torch.ones(3)
FAULTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "a value": (lambda x: x.mul_(x.sum().item()), "_local_scalar_dense"),
    "a decision": (lambda x: x.mul_(2) if x.any() else x, "_local_scalar_dense"),
    "a comparison": (lambda x: torch.equal(x, x), "equal"),
    "rows that a mask chooses": (lambda x: x.add_(x[x > 0].sum()), "a mask chooses"),
    "rows that a mask changes": (lambda x: x.index_put_((x > 0,), x[:1]), "a mask chooses"),
    "places of what is true": (lambda x: torch.nonzero(x), "nonzero"),
    "numbers of Python": (lambda x: x.add_(torch.tensor([1.0, 2.0, 3.0], device=x.device)), "lift_fresh"),
    "one number of Python": (lambda x: x.add_(x.new_tensor(2.0)), "lift_fresh"),
    "a list of rows": (lambda x: x.add_(x[[0, 1, 2]]), "lift_fresh"),
    "a scalar that stayed behind": (lambda x: x.mul_(torch.tensor(2.0)), "lift_fresh"),
    "a copy from the host": (lambda x: x.copy_(CPU), "host in a recorded step"),
    "a copy to the host": (lambda x: CPU.clone().copy_(x), "host in a recorded step"),
    "cpu()": (lambda x: x.mul_(2).cpu(), "cpu asks the device"),
    "a draw": (lambda x: x.add_(torch.rand(3, device=x.device)), "rand"),
    "singular values": (lambda x: torch.linalg.svdvals(x[None]), "svd"),
}
NO_MEETING = ("a draw", "singular values", "a scalar that stayed behind")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_host_and_device_meet_for_is_counted_and_refused_in_a_recorded_step(fault: str) -> None:
    step, said = FAULTS[fault]
    with fake_cuda() as cuda:
        engine, _ = taken(step)
        assert engine.why_eager is not None and said in engine.why_eager and cuda.recorded == 0
        met = cuda.fetched.total() + cuda.sent.total() - 1  # the tensor's own numbers were sent
        assert met == (0 if fault in NO_MEETING else 1) * 7


MIXED: dict[str, Callable[[Tensor], object]] = {
    "a sum": lambda x: x + CPU,
    "a product": lambda x: x[None] @ CPU[:, None],
    "in place": lambda x: CPU.clone().add_(x),
    "a stack": lambda x: torch.stack([x, CPU]),
    "rows of the host by places on the device": lambda x: CPU[x.long()],
    "a scalar in a reduction": lambda x: torch.sum(x, 0, out=torch.zeros(())),
    "steps of Adam": lambda x: Adam(x, x.clone(), x.clone(), torch.zeros(())).update(x, 0.1),
    "a generator of the host": lambda x: torch.rand(3, generator=stream(0, "x"), device="cuda"),
    "a generator of the device": lambda x: torch.rand(3, generator=stream(0, "x", 0, "cuda")),
}


@pytest.mark.parametrize("what", MIXED)
def test_tensors_of_two_devices_do_not_mix(what: str) -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match=r"two devices|another device"):
        taken(MIXED[what])


def test_torch_refuses_what_is_on_the_device() -> None:
    with fake_cuda(), pytest.raises((RuntimeError, TypeError)):
        torch.ones(3, device="cuda").numpy()


def test_what_torch_has_kernels_for() -> None:
    aten = torch.ops.aten
    having = (aten.add.Tensor, aten.sum.IntList_out, aten._fused_adam_.default, aten.zeros_like.default, aten.bmm.out)
    assert all(map(has_kernel, having))
    assert not has_kernel(aten.to_mkldnn.default) and not has_kernel(aten.mkldnn_linear.default)


def test_streams_are_the_same_on_both_devices_and_nothing_stays_afterwards() -> None:
    with fake_cuda() as cuda:
        numbers = torch.randn(4, generator=stream(0, "x", 0, "cuda"), device="cuda")
        assert isinstance(cuda, FakeCuda) and off_device([numbers, {"x": CPU}]) == [".1.x"]
        numbers = numbers.cpu()
    assert torch.equal(numbers, torch.randn(4, generator=stream(0, "x")))
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda") if not torch.cuda.is_available() else numbers.view(3)
