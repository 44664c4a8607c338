"""Model-based offline policy optimisation (MOPO), from logged data to a policy."""

__version__ = "0.1.0"
