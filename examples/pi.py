"""Monte-Carlo estimate of pi: the same call, many times over, with ``dtm.repeat``.

::

    python examples/pi.py
    mpirun -n 4 python examples/pi.py --calls 1000 --points 100000

The random numbers of a call depend on the seed and on the call's place in the
program, not on the worker it happens to run on: the digits printed are the same
on one worker and on a thousand.
"""

import argparse
import random

from dtm import dtm


def hits(points: int) -> int:
    """Throw points into the unit square; return how many fall within the quarter circle."""
    return sum(random.random() ** 2 + random.random() ** 2 <= 1.0 for _ in range(points))


def main(calls: int, points: int) -> None:
    inside = sum(dtm.repeat(hits, calls, points))
    print(f"pi is about {4.0 * inside / (calls * points):.6f} ({calls} x {points} points)")


parser = argparse.ArgumentParser(description="Monte-Carlo estimate of pi")
parser.add_argument("--calls", type=int, default=200, help="how many tasks")
parser.add_argument("--points", type=int, default=5000, help="points thrown by each task")
parser.add_argument("--seed", type=int, default=42)
args = parser.parse_args()

dtm.setOptions(seed=args.seed)
dtm.start(main, args.calls, args.points)
