"""Adam over a stack of flat parameters."""

from dataclasses import dataclass, field
from math import log
from typing import Any

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused, is_fusing
from mopo_cli.engine.parallel import spread
from mopo_cli.nets.stacked import part, units


@dataclass
class Adam:
    """First and second moments `[M, size]` of every parameter, the gradient to step along, and the steps taken, `[]`.

    These are counted on the device, so that a step can be replayed there.
    """

    first: Tensor
    second: Tensor
    grad: Tensor
    steps: Tensor
    # By unit: the parameters, and views of their members and of those of the above, which take long to make.
    _rows: dict[int, tuple[Any, ...]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def like(cls, flat: Tensor) -> "Adam":
        """Zero moments for parameters of this shape."""
        first, second, grad = (torch.zeros_like(flat) for _ in range(3))
        return cls(first, second, grad, torch.zeros((), device=flat.device))

    def update(self, flat: Tensor, learning_rate: float, decay: Tensor | None = None) -> None:
        """Take one step along `grad`, in place (Kingma & Ba 2015, algorithm 1; betas 0.9 and 0.999, epsilon 1e-8).

        Element-wise, so a stack of members is stepped as each would be alone. With `decay` `[size]`, decay times the
        parameters is added to the gradient first.
        """
        self.steps += 1
        spread(lambda u: self.step(u, flat, learning_rate, decay), units(flat))

    def step(
        self,
        u: int,
        flat: Tensor,
        learning_rate: float,
        decay: Tensor | None = None,
        target: Tensor | None = None,
        tau: float = 0.0,
    ) -> None:
        """Do the share of a unit in `update`; the caller adds one to `steps` once, before the first unit.

        Then target += tau (flat - target), where there is one.
        """
        if is_fusing():
            _step(flat, self.grad, self.first, self.second, self.steps, decay, target, learning_rate, tau)
            return
        if self._rows.get(u, (None,))[0] is not flat:
            # Member by member also on CPU: the kernel rounds the last few elements otherwise than the rest.
            some = slice(None) if flat.is_cuda else slice(u, u + 1)
            self._rows[u] = flat, *(list(s[some].unbind()) for s in (flat, self.grad, self.first, self.second))
        _, flats, grads, firsts, seconds = self._rows[u]
        if decay is not None:
            torch._foreach_addcmul_(grads, flats, [decay] * len(flats))
        torch._fused_adam_(
            flats,
            grads,
            firsts,
            seconds,
            [],
            [self.steps] * len(flats),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        if target is not None:
            part(target, u).lerp_(part(flat, u), tau)

    def restore(self, first: Tensor, second: Tensor, steps: int) -> None:
        """Put moments and steps back, in place."""
        self.first.copy_(first)
        self.second.copy_(second)
        self.steps.fill_(steps)


@fused
def _step(
    flat: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    decay: Tensor | None,
    target: Tensor | None,
    learning_rate: float,
    tau: float,
) -> None:
    """`Adam.step` as one fused function, of a whole stack."""
    if decay is not None:
        grad = torch.addcmul(grad, flat, decay)
    first.lerp_(grad, 1 - 0.9)
    second.mul_(0.999).addcmul_(grad, grad, value=1 - 0.999)
    # 1 - beta^steps, exact where that is small
    first_share, second_share = -torch.expm1(steps * log(0.9)), -torch.expm1(steps * log(0.999))
    flat.sub_(learning_rate * (first / first_share) / ((second / second_share).sqrt() + 1e-8))
    if target is not None:
        target.lerp_(flat, tau)
