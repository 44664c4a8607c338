"""What `rollout`, `evaluate` and `ablate` can tell besides their results."""
