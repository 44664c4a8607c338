"""What drives the learners: random streams, recorded steps, threads and processes that help, members of a stack."""
