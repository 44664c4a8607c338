"""What the stages open."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mopo_cli.engine.capture import cuda_graph
from mopo_cli.errors import UsageError
from mopo_cli.stages.common.device import open_device, open_recorder
from mopo_cli.stages.common.inputs import described
from mopo_cli.stages.common.options import Options


def test_steps_are_recorded_on_a_gpu_unless_told_otherwise() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    assert open_recorder(Options(), gpu) is cuda_graph
    assert open_recorder(Options(engine="cudagraph"), gpu) is cuda_graph
    assert open_recorder(Options(engine="eager"), gpu) is None
    assert open_recorder(Options(), cpu) is open_recorder(Options(engine="eager"), cpu) is None
    compiled = open_recorder(Options(engine="compile"), gpu)
    assert compiled is not None and compiled is not cuda_graph
    for engine in ("cudagraph", "compile"):
        with pytest.raises(UsageError, match=f"--engine {engine} needs a CUDA device, and this is cpu"):
            open_device(Options(device="cpu", engine=engine))


def test_compiling_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: SimpleNamespace(device=torch.device("cuda:0")))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr("mopo_cli.stages.common.device.has_triton", lambda: False)
    with pytest.raises(UsageError, match="--engine compile needs Triton") as refused:
        open_device(Options(device="cuda", engine="compile"))
    assert refused.value.hint == "--engine cudagraph"


@pytest.mark.gpu
def test_a_graph_does_what_was_recorded_on_the_numbers_that_are_there_then() -> None:
    total, more = torch.zeros(4, device="cuda"), torch.ones(4, device="cuda")
    replay = cuda_graph(lambda: total.add_(more))  # type: ignore[arg-type]
    assert not total.any()
    for value in (1.0, 2.0):
        more.fill_(value)
        replay()
    assert (total == 3).all()


def test_a_gpu_without_room_does_not_make_a_file_a_damaged_one() -> None:
    with pytest.raises(torch.OutOfMemoryError), described(Path("policy.safetensors")):
        raise torch.OutOfMemoryError("CUDA out of memory.")
