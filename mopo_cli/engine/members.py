"""The runs that train side by side: what tells one member of the stack from another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One training run: its seed, its penalty and lambda, its rollout horizon, and which model it uses (position)."""

    seed: int
    penalty: str
    lam: float
    h: int
    model: int
