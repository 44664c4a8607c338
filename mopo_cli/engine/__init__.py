"""What drives the learners: named random streams and the members of a stack."""
