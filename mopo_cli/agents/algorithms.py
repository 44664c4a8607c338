"""The algorithms by name; each is a file of its own."""

from mopo_cli.agents.algorithm import Algorithm
from mopo_cli.agents.bc import BC
from mopo_cli.agents.sac import SAC

ALGORITHMS: dict[str, Algorithm] = {"sac": SAC, "bc": BC}
