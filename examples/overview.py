"""The program of the overview: one map, on every core or on every machine.

Run it on the cores of this machine, or on a cluster; not a byte changes::

    python examples/overview.py
    mpirun -n 4 python examples/overview.py

An argument says how many numbers (1000 if there is none).
"""

import sys

from dtm import dtm


def op(x: int) -> float:
    return x + 1.0 / x


def main(count: int) -> list[float]:
    return dtm.map(op, range(1, count))


# Only the root comes back from here: the other workers end with the run.
results = dtm.start(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
print(f"{len(results)} results, sum {sum(results):.6f}")
