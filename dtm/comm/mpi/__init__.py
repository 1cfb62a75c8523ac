"""The communication manager over MPI, and what MPI needs around it."""
