"""What logged actions tell where no environment does: whether they are continuous, and how far they go."""

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.transitions import Floats

_FEW = 20


def check_continuous(column: NDArray[np.generic], name: str, where: str) -> Check:
    """Whether the only action column, as it is stored, can be a quantity and not the number of a choice.

    It fails for integers or booleans of no more than 20 different values. Floating-point numbers (in CSV: any
    cell with a decimal point or an exponent) are always taken for a quantity, and so are integers of many values.
    """
    values = np.unique(column) if column.dtype.kind in "iub" else column[:0]
    if not 0 < len(values) <= _FEW:
        return Check(name, "continuous")
    shown = ", ".join(str(int(value)) for value in values.ravel())
    fault = (
        f"{where}: column {name}: actions are discrete ({shown}): mopo learns continuous actions. If they are steps of "
        "a quantity, store them as floating-point numbers (0.0, 1.0) or give action_low and action_high in a "
        "--columns YAML; if they are choices, this data needs a method for discrete actions."
    )
    return Check(name, "continuous", fault)


def bounds_of(actions: Floats, names: list[str], where: str) -> tuple[Floats, Floats, list[Check]]:
    """Bounds `[A]` from the data: a dimension on both sides of 0 has [-1, 1] or as far as it goes either way; one
    that keeps to one side, as a valve does, has its least and greatest value.

    A dimension that never changes fails its check: nothing is known of what it does, so a policy must not move it.
    """
    least, greatest = actions.min(axis=0, initial=np.inf), actions.max(axis=0, initial=-np.inf)
    reach = np.maximum(np.abs(actions).max(axis=0, initial=0.0), 1).astype(np.float32)
    both = (least < 0) & (greatest > 0)
    checks = [
        Check(
            name,
            "varies",
            f"{where}: column {name} is {least[i]:g} in every row, so nothing is known of what it does: leave it "
            "out, or give its bounds (action_low and action_high in a --columns YAML, or --env ENV-ID)."
            if len(actions) and least[i] == greatest[i]
            else "",
        )
        for i, name in enumerate(names)
    ]
    return np.where(both, -reach, least), np.where(both, reach, greatest), checks
