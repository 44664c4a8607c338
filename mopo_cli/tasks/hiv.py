"""HIV treatment: two drugs dosed day by day against the virus and their own cost (MOPO App. F).

The model of Adams et al. 2004, "Dynamic multidrug therapies for HIV", with whynot's parameters and early
infection as the start. Its six states differ by ten orders of magnitude and infected cells fall far below 1,
so it is integrated in logarithms, where one tolerance suits all and nothing can turn negative.
"""

from math import exp
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import odeint

from mopo_cli.tasks.rewards import hiv_treatment

State = NDArray[np.float64]

STATES = ("T1", "T1*", "T2", "T2*", "V", "E")
"""Target cells, infected cells (cells/ml) of two kinds, free virus (copies/ml), immune effectors (cells/ml)."""
EARLY_INFECTION = (1e6, 1e-4, 3198.0, 1e-4, 1.0, 10.0)
MAX_DOSES = (0.7, 0.3)
"""Largest efficacies e₁ of the reverse transcriptase inhibitor, e₂ of the protease inhibitor."""

# Supply (cells/ml/day) and death (1/day) of target cells; infection (ml/copy/day); what of e₁ acts on T2.
_SUPPLY1, _SUPPLY2, _DEATH1, _DEATH2 = 1e4, 31.98, 0.01, 0.01
_INFECT1, _INFECT2, _SHARE = 8e-7, 1e-4, 0.34
# Death and clearing of infected cells; virions per cell, their clearing, and how many one infection takes.
_DEATH, _CLEAR1, _CLEAR2 = 0.7, 1e-5, 1e-5
_VIRIONS, _CLEAR_VIRUS, _TAKEN1, _TAKEN2 = 100.0, 13.0, 1.0, 1.0
# Immune response: supply, growth and exhaustion with their half-saturations, death.
_SUPPLY_E, _GROW, _HALF_GROW, _EXHAUST, _HALF_EXHAUST, _DEATH_E = 1.0, 0.3, 100.0, 0.25, 500.0, 0.1

# Keeps 400 days of any therapy within 1e-6 of the exact solution, in logarithms, at some 3000 days a second.
_TOLERANCE = 1e-10
_MOST_SUBSTEPS = 100_000


def log_rates(log_state: State, _time: float, dose1: float, dose2: float) -> tuple[float, ...]:
    """d(log state)/dt per day `[6]` at a log state `[6]` under two constant doses."""
    t1, i1, t2, i2, v, e = map(exp, log_state.tolist())
    infect1, infect2 = (1 - dose1) * _INFECT1, (1 - _SHARE * dose1) * _INFECT2
    infected = i1 + i2
    shed = (1 - dose2) * _VIRIONS * _DEATH * infected
    response = _GROW * infected / (infected + _HALF_GROW) - _EXHAUST * infected / (infected + _HALF_EXHAUST)
    return (
        _SUPPLY1 / t1 - _DEATH1 - infect1 * v,
        infect1 * v * t1 / i1 - _DEATH - _CLEAR1 * e,
        _SUPPLY2 / t2 - _DEATH2 - infect2 * v,
        infect2 * v * t2 / i2 - _DEATH - _CLEAR2 * e,
        shed / v - _CLEAR_VIRUS - _TAKEN1 * infect1 * t1 - _TAKEN2 * infect2 * t2,
        _SUPPLY_E / e + response - _DEATH_E,
    )


def day(log_state: State, doses: ArrayLike) -> State:
    """The log state `[6]` a day later under constant doses `[2]`. Raises ArithmeticError if the solver gives up."""
    path, notes = odeint(
        log_rates,
        log_state,
        (0.0, 1.0),
        args=tuple(np.asarray(doses, np.float64).tolist()),
        rtol=_TOLERANCE,
        atol=_TOLERANCE,
        mxstep=_MOST_SUBSTEPS,
        full_output=True,
    )
    if notes["message"] != "Integration successful.":
        raise ArithmeticError(f"The HIV model cannot be integrated from the log state {log_state}: {notes['message']}")
    end: State = path[-1]
    return end


class HIVTreatment(gym.Env[State, NDArray[np.float32]]):
    """Doses e₁ in [0, 0.7] and e₂ in [0, 0.3] for a day each; the observation is the logarithm of the state.

    The reward is 1000 E - 0.1 V - 20000 (e₁² + e₂²) of the day's end, times ``reward_unit``: 1e-6 suits
    learning and is what the authors' code has, 1e-3 gives the numbers of MOPO's Table 5. Nothing is random:
    every episode starts at early infection, and no state ends it but its time limit of 400 days.
    Doses beyond the bounds count as the bounds.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, reward_unit: float = 1e-6) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (len(STATES),), np.float64)
        self.action_space = gym.spaces.Box(np.zeros(2, np.float32), np.array(MAX_DOSES, np.float32))
        self._reward_unit = reward_unit
        self._log_state = np.log(EARLY_INFECTION)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        """Early infection; there are no options, and the seed makes no difference."""
        super().reset(seed=seed)
        self._log_state = np.log(EARLY_INFECTION)
        return self._log_state.copy(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[State, float, bool, bool, dict[str, Any]]:
        """One day of treatment."""
        doses = np.clip(np.asarray(action, np.float64), 0.0, MAX_DOSES)
        self._log_state = day(self._log_state, doses)
        reward = self._reward_unit * float(hiv_treatment(np.exp(self._log_state), doses))
        return self._log_state.copy(), reward, False, False, {}
