"""Minari's data sets: found, downloaded, checked and read."""
