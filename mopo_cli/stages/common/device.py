"""What the stages compute with: the device, its threads and products, and how gradient steps are recorded on it."""

import ctypes
import sys

import torch
from torch.utils._triton import has_triton

from mopo_cli.engine.capture import Engine, Recorder, cuda_graph
from mopo_cli.engine.fused import fused_recorder
from mopo_cli.engine.parallel import use_threads
from mopo_cli.errors import SettingsError, UsageError
from mopo_cli.nets import libraries
from mopo_cli.nets.precision import Precision
from mopo_cli.report.console import Report
from mopo_cli.stages.common.chosen_products import use_products
from mopo_cli.stages.common.options import Options

# From glibc's malloc.h; a block of _MAPPED_BYTES or more is always mapped separately and returned when freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _MAPPED_BYTES = 1 << 30, 1 << 25
_TENSOR_FLOAT = 8, 0  # the least compute capability that has it
_TORCH_THREADS = torch.get_num_threads()  # before `use_threads` changes it


def open_device(options: Options) -> torch.device:
    """The device to compute on: `auto` takes a CUDA GPU where there is one. Sets what a CPU computes with.

    That is the number of threads and the libraries of matrix products. UsageError for a device or library that this
    machine or this build of torch does not have, or an engine that it cannot be.
    """
    _keep_freed_memory()
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=name).device  # with its number, which "cuda" is without
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device {options.device} is not usable here: {str(error).splitlines()[0]}", hint="--device cpu"
        ) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are made on the current device
    elif options.engine in {"cudagraph", "compile"}:
        raise UsageError(f"--engine {options.engine} needs a CUDA device, and this is {device}.", hint="--engine auto")
    if options.engine == "compile" and not has_triton():
        raise UsageError(
            "--engine compile needs Triton, and this Python has none that works with this GPU.",
            hint="--engine cudagraph",
        )
    # Work for a GPU is launched by one thread.
    use_threads(cpu_threads(options) if device.type == "cpu" else 1)
    if device.type == "cpu":
        use_products(options.products)
    else:
        libraries.use(None)
    return device


def open_recorder(options: Options, device: torch.device) -> Recorder | None:
    """Records gradient steps as a CUDA graph; None where they run eagerly (on a CPU, or with --engine eager).

    With --engine compile, small operations are fused in it.
    """
    if device.type != "cuda" or options.engine == "eager":
        return None
    return fused_recorder(cuda_graph) if options.engine == "compile" else cuda_graph


def can_multiply(precision: Precision, device: torch.device) -> bool:
    """Whether a device can multiply in that precision."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _TENSOR_FLOAT
    return able or precision != "tf32"


def check_precision(flag: str, precision: Precision, device: torch.device) -> None:
    """SettingsError, naming the flag, where a device cannot multiply in that precision."""
    if not can_multiply(precision, device):
        raise SettingsError(
            f"{flag} tf32 needs an NVIDIA GPU of the Ampere generation or later, and this is {device}.",
            hint=f"{flag} bf16, or fp32",
        )


def tell_doubt(engine: Engine, report: Report) -> None:
    """Say, once, why steps are no longer replayed."""
    if engine.why_eager is not None:
        report.say(f"gradient steps run eagerly, which is slower: {engine.why_eager}")
        engine.why_eager = None


def cpu_threads(options: Options) -> int:
    """--threads, or torch's default: the number of CPUs, or OMP_NUM_THREADS."""
    return options.threads or _TORCH_THREADS


def _keep_freed_memory() -> None:
    # glibc returns freed megabytes to the system and requests them again a millisecond later; every such page is
    # then cleared again. If they are kept, an update takes a fifth less time.
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(ctypes.c_int(_M_TRIM_THRESHOLD), ctypes.c_int(_KEPT_BYTES))
            libc.mallopt(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(_MAPPED_BYTES))
