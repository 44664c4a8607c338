"""The public functions. What they need is imported when they are called."""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mopo_cli.policy.model import Model
    from mopo_cli.policy.policy import Policy
    from mopo_cli.policy.run import Run


def load_policy(path: "str | PathLike[str]") -> "Policy":
    """Read a policy: policy.safetensors of a run, or what `mopo export` made of it (.onnx, .npz). Imports no torch.

    The policy is a function, `action = policy(observation)`: see `Policy`. InputError (of `mopo_cli.errors`) where the
    file is missing, is something else or needs onnxruntime, which is not installed; CorruptError where it is damaged.
    """
    from mopo_cli.policy.files import read_policy

    return read_policy(Path(path))


def load_model(path: "str | PathLike[str]", seed: int | None = None) -> "Model":
    """Read the dynamics model in a run's model/ensemble.safetensors. Imports no torch.

    Of several ensembles it is that of ``seed``, else the first; see `Model`. The elites are those of elites.json in the
    run, all networks where it is missing. InputError where the file is missing, is something else, has no ensemble of
    that seed or was made by a version that did not store the bounds of actions; CorruptError where it is damaged.
    """
    from mopo_cli.policy.model import read_model

    return read_model(Path(path), seed)


def open_run(path: "str | PathLike[str]") -> "Run":
    """List what a run folder holds: see `Run`. Imports no torch.

    InputError where the path is no run folder, CorruptError where a record is damaged.
    """
    from mopo_cli.policy.run import read_run

    return read_run(Path(path))
