"""What a job gets where nobody said so, from what this machine has."""

import os

from mopo_cli.placing.engine import Resources
from mopo_cli.store.machine import cpu_count

_MOST_CPUS = 8  # beside a GPU: they launch its work and play episodes


def usual_resources(cpus: int | None, gpus: float | None, device: str) -> Resources:
    """What was asked for, else a GPU per job where this machine has some and ``device`` does not rule them out.

    Beside a GPU a job has its share of this machine's CPUs, at most 8, else one: by `mopo bench`, seeds side by side
    make more of each core than threads do.
    """
    devices = gpu_names() if device != "cpu" else []
    if gpus is None:
        gpus = 1.0 if devices or device.startswith("cuda") else 0.0
    if cpus is None:
        share = int(cpu_count() * gpus / len(devices)) if devices else 1
        cpus = min(_MOST_CPUS, max(1, share))
    return Resources(cpus, gpus)


def gpu_names() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()  # that variable may name what is not there: -1 for none
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()][:count]
    return [str(number) for number in range(count)]
