"""The one primitive: a linear layer over a stack of independent members, and their parameters in one flat tensor.

Members share nothing, so a member's numbers must not depend on its neighbours. On CUDA one batched product
serves all members. On CPU the products run member by member: a batched product picks its kernel by the size
of the stack and the alignment of each member, and with that its rounding.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes; matrix kernels round differently where a matrix starts off this boundary
_FLOATS = _ALIGNMENT // 4


def _aligned(matrix: Tensor) -> Tensor:
    return matrix if matrix.data_ptr() % _ALIGNMENT == 0 else matrix.clone()


def matmul(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply member by member: `[M, B, I] @ [M, I, O] (+ [M, 1, O])` -> `[M, B, O]`.

    On CPU each member's result is the same to the last bit whatever else is in the stack.
    """
    if left.is_cuda:
        return torch.bmm(left, right) if bias is None else torch.baddbmm(bias, left, right)
    out = left.new_empty(left.shape[0], left.shape[1], right.shape[2])
    for m in range(left.shape[0]):
        a, b, target = _aligned(left[m]), _aligned(right[m]), out[m]
        if target.data_ptr() % _ALIGNMENT:
            target.copy_(torch.mm(a, b) if bias is None else torch.addmm(_aligned(bias[m]), a, b))
        elif bias is None:
            torch.mm(a, b, out=target)
        else:
            torch.addmm(_aligned(bias[m]), a, b, out=target)
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_x = matmul(grad, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        grad_weight = matmul(x.transpose(1, 2), grad) if ctx.needs_input_grad[1] else None
        # A product with ones, not `sum`: the order of a reduction may change with the size of the stack.
        ones = grad.new_ones(1, 1, grad.shape[1]).expand(grad.shape[0], -1, -1)
        grad_bias = matmul(ones, grad) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply one layer of every member: x `[M, B, I]`, weight `[M, I, O]`, bias `[M, 1, O]` -> `[M, B, O]`."""
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]
    return matmul(x, weight, bias)


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        for inputs, target in zip(x, out, strict=True):
            torch.ops.aten.silu.out(inputs, out=target)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        for grad, inputs, target in zip(grads[0], x, out, strict=True):
            torch.ops.aten.silu_backward.grad_input(grad, inputs, grad_input=target)
        return out


def silu_(x: Tensor) -> Tensor:
    """x sigmoid(x) of `[M, …]`; overwrites x where no gradient is wanted.

    On CPU member by member, as the kernel rounds the last few elements of a tensor otherwise than the rest.
    """
    if x.is_cuda:
        return torch.nn.functional.silu(x)
    if torch.is_grad_enabled():
        return _Silu.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    for member in x:
        torch.nn.functional.silu(member, inplace=True)
    return x


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) from operations that round alike wherever an element lies in memory."""
    return 0.5 * (x + x.abs()) + torch.log1p(torch.exp(-x.abs()))


@dataclass(frozen=True)
class Layout:
    """Where each named matrix of one member lies in its flat row of parameters."""

    shapes: tuple[tuple[str, tuple[int, int]], ...]

    @property
    def size(self) -> int:
        """Floats a member takes, every matrix starting on an aligned address."""
        return sum(_padded(prod(shape)) for _, shape in self.shapes)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Name the matrices in flat parameters `[M, size]`: views `[M, rows, cols]`, no copy."""
        views, offset = {}, 0
        for name, shape in self.shapes:
            views[name] = flat[:, offset : offset + prod(shape)].unflatten(1, shape)
            offset += _padded(prod(shape))
        return views

    def leaves(self, flat: Tensor) -> dict[str, Tensor]:
        """Like `views`, each a leaf that autograd can differentiate by."""
        return {name: view.detach().requires_grad_() for name, view in self.views(flat).items()}

    def gradient(self, loss: Tensor, leaves: dict[str, Tensor], out: Tensor) -> None:
        """Differentiate a loss (summed over members) by `leaves` into flat `out` `[M, size]`, padding left alone."""
        grads = torch.autograd.grad(loss, list(leaves.values()))
        torch._foreach_copy_(list(self.views(out).values()), list(grads))

    def pack(self, matrices: dict[str, Tensor]) -> Tensor:
        """Put named matrices `[M, rows, cols]` into a new flat tensor `[M, size]`."""
        first = matrices[self.shapes[0][0]]
        flat = first.new_zeros(first.shape[0], self.size)
        for name, view in self.views(flat).items():
            view.copy_(matrices[name])
        return flat


def _padded(floats: int) -> int:
    return -(-floats // _FLOATS) * _FLOATS


def mlp_layout(sizes: tuple[int, ...]) -> Layout:
    """Name the weights and biases of a multilayer perceptron: w0 `[in, out]`, b0 `[1, out]`, w1, …"""
    shapes: list[tuple[str, tuple[int, int]]] = []
    for i, (rows, cols) in enumerate(pairwise(sizes)):
        shapes += [(f"w{i}", (rows, cols)), (f"b{i}", (1, cols))]
    return Layout(tuple(shapes))


def mlp(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Evaluate a stack of ReLU perceptrons: x `[M, B, in]` -> `[M, B, out]`."""
    depth = len(params) // 2
    for i in range(depth - 1):
        x = torch.relu_(linear(x, params[f"w{i}"], params[f"b{i}"]))
    return linear(x, params[f"w{depth - 1}"], params[f"b{depth - 1}"])


@dataclass
class Adam:
    """First and second moments `[M, size]` of every parameter, the steps taken, and room for a gradient."""

    first: Tensor
    second: Tensor
    grad: Tensor
    steps: int = 0

    @classmethod
    def like(cls, flat: Tensor) -> "Adam":
        """Zero moments for parameters of this shape."""
        return cls(torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros_like(flat))

    def update(self, flat: Tensor, learning_rate: float) -> None:
        """Take one step along `grad`, in place (Kingma & Ba 2015, algorithm 1; betas 0.9 and 0.999, epsilon 1e-8).

        Element-wise, so a stack of members is stepped as each would be alone.
        """
        # Filled in on the device: copied to it, the number would make the host wait for all work before it.
        step = torch.full((), float(self.steps + 1), device=flat.device)
        # A list of members, not one tensor: the kernel rounds the last few elements otherwise than the rest.
        torch._fused_adam_(
            list(flat),
            list(self.grad),
            list(self.first),
            list(self.second),
            [],
            [step] * len(flat),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        self.steps += 1
