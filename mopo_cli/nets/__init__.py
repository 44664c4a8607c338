"""Networks as stacks: weights `[stack, in, out]`, every member evaluated by one call."""
