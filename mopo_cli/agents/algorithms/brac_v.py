"""BRAC with value penalty: the divergence from the behaviour is in the actor's loss and in the critics' target."""

from mopo_cli.agents.brac import algorithm

ALGORITHM = algorithm(value_penalty=True)
