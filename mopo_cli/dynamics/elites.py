"""The networks that generate: those with the lowest hold-out error (MBPO; 5 of 7 in MOPO appendix G.2)."""

from math import isnan


def rank(errors: list[float]) -> list[int]:
    """Order the networks from the lowest error to the highest, NaN last; equal errors keep their order."""
    return sorted(range(len(errors)), key=lambda k: (isnan(errors[k]), errors[k]))
