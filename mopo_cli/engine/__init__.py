"""What runs the learners: random streams, recorded steps, work over the cores, members of a stack, packed rows."""
