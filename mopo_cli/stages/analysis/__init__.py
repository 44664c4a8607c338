"""Further analyses of what `rollout`, `evaluate` and `ablate` made."""
