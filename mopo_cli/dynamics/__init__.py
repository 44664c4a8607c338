"""The learned dynamics: the ensemble, how it is fitted, what it is unsure of, and rollouts in it."""
