"""The core: pure state machines, no thread, socket, clock or MPI; random numbers are handed in."""
