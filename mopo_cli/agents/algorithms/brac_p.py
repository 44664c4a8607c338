"""BRAC with policy regularisation: the divergence from the behaviour is in the actor's loss alone."""

from mopo_cli.agents.brac import algorithm

ALGORITHM = algorithm(value_penalty=False)
