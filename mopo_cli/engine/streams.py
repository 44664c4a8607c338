"""Named random streams: a draw depends on whose it is and what it is for, never on what was drawn before.

A stream is a function of (seed, name, index), so a stacked member draws what it would draw alone, and a
resumed run needs no generator state: the counter of the loop is the state.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


def stream(seed: int, name: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the `index`-th block of draws called `name` of the member with `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return generator


@dataclass(frozen=True)
class Draws:
    """The random numbers of S members for one block of steps, each member's from its own stream.

    They depend on the order in which they are drawn, which must be the same for all blocks.
    """

    generators: tuple[torch.Generator, ...]

    def normal(self, lead: int, *shape: int) -> Tensor:
        """Standard normal numbers `[lead, S, *shape]`."""
        return torch.stack([torch.randn((lead, *shape), generator=g, device=g.device) for g in self.generators], dim=1)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers evenly spread over [-1, 1], `[S, *shape]`."""
        unit = [torch.rand(shape, generator=g, device=g.device) for g in self.generators]
        return torch.stack(unit).mul_(2).sub_(1)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to high - 1, `[S, *shape]`."""
        return torch.stack([torch.randint(high, shape, generator=g, device=g.device) for g in self.generators])


def draws(seeds: Iterable[int], name: str, index: int, device: torch.device | str) -> Draws:
    """The draws of members with these seeds from their streams `name`, block `index`."""
    return Draws(tuple(stream(seed, name, index, device) for seed in seeds))
