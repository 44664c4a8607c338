"""Policy learning: the algorithms, a file each, the replay rows, and the training loop of MOPO's Algorithm 2."""
