"""Named random streams: a draw depends on whose it is and what it is for, never on what was drawn before.

A stream is a function of (seed, name, index), so a stacked member draws what it would draw alone, and a
resumed run needs no generator state: the counter of the loop is the state.
"""

import hashlib

import torch


def stream(seed: int, name: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the `index`-th block of draws called `name` of the member with `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return generator
