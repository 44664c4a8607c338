"""Logged transitions: where they come from, what they must satisfy, and how they are described."""
