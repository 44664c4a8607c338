"""A step of training by one library and by the other: the same but for rounding."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from probes.agents import SETTINGS, make_batch, make_sac, tensors
from probes.fits import TINY, make_data
from torch import Tensor

from mopo_cli.agents.algorithms.sac import gradient_step
from mopo_cli.dynamics.fit import fit_checkpoint, start_fit
from mopo_cli.dynamics.training import advance
from mopo_cli.nets import libraries
from mopo_cli.nets.libraries import LIBRARIES, Library, all_by
from mopo_cli.nets.products import can_use_onednn

pytestmark = pytest.mark.skipif(not can_use_onednn(torch.float32), reason="torch has no oneDNN here")
WIDE = 400  # sums of up to 384 products are added up alike by both on some processors


def policy_update(library: Library) -> tuple[dict[str, Tensor], float]:
    libraries.use(all_by(library))
    sac = make_sac(1, replace(SETTINGS, hidden=WIDE))
    gradient_step(sac, *make_batch(1, 256))
    return tensors(sac), SETTINGS.critic_lr


def model_step(library: Library) -> tuple[dict[str, Tensor], float]:
    libraries.use(all_by(library))
    fit = start_fit(make_data(), replace(TINY, hidden=WIDE, batch_size=256), (0,))
    advance(fit, 1)
    return fit_checkpoint(fit)[0], TINY.learning_rate


@pytest.mark.parametrize("step", [policy_update, model_step])
def test_both_libraries_take_the_same_step(step: Callable[[Library], tuple[dict[str, Tensor], float]]) -> None:
    (one, lr), (other, _) = (step(library) for library in LIBRARIES)
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one), "both were made by one library"
    for name, result in one.items():
        if not result.isfinite().all():  # no hold-out error yet
            assert torch.equal(result, other[name])
            continue
        difference, size = (result - other[name]).abs().float(), other[name].abs().float()
        # Adam's first step is the gradient's sign times the learning rate, and a sign may turn where it is nearly zero.
        assert bool((difference <= 2.01 * lr + 1e-5 * size).all()), name
        assert float(difference.mean()) <= 1e-5 * float(size.mean()) + 1e-9, name
