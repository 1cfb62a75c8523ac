"""A program that initialises MPI itself, and goes on after the run."""

from __future__ import annotations

from time import sleep

from mpi4py import MPI

from dtm import dtm


def main() -> None:
    print(sum(dtm.map(abs, range(-100, 100))))


dtm.start(main)
sleep(1)
print("finalised", MPI.Is_finalized())
