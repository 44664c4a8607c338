"""How good is a policy: returns in the real environment, statistics over seeds, and the published numbers."""
