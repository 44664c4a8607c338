"""Policy learning: the replay rows, SAC, and the loop of MOPO's Algorithm 2."""
