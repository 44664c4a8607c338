"""Numbers of the papers, written out a second time."""

# (h, lam) of MOPO: final version, Table 6.
H_LAM = {
    "halfcheetah-random": (5, 0.5),
    "hopper-random": (5, 1),
    "walker2d-random": (1, 1),
    "halfcheetah-medium": (1, 1),
    "hopper-medium": (5, 5),
    "walker2d-medium": (5, 5),
    "halfcheetah-medium-replay": (5, 1),
    "hopper-medium-replay": (5, 1),
    "walker2d-medium-replay": (1, 1),
    "halfcheetah-medium-expert": (5, 1),
    "hopper-medium-expert": (5, 1),
    "walker2d-medium-expert": (1, 2),
}
# First version, Table 4.
FIRST_VERSION = {**H_LAM, "hopper-medium-replay": (1, 5), "halfcheetah-medium-expert": (5, 5)}
