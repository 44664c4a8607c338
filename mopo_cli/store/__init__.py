"""Files: the run folder, atomic publishing, checkpoints, lineage and locks."""
