"""Trained policies and models outside mopo: by numpy, and as files that need nothing of mopo."""
