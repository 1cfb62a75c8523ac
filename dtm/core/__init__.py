"""The core: pure state machines, no thread, socket, clock, random source or MPI."""
