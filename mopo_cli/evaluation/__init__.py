"""How good a policy is: returns in the environment, estimates without one, and the published numbers."""
