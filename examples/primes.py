"""Count the primes below a limit with ``dtm.filter``.

::

    python examples/primes.py
    mpirun -n 4 python examples/primes.py 2000000

Most candidates cost next to nothing (they are even), a few cost thousands of
divisions, and which ones is not known beforehand.  No chunk size is given: dtm
cuts the range where a worker runs out of work.
"""

import argparse
from math import isqrt

from dtm import dtm


def is_prime(n: int) -> bool:
    if n < 4:
        return n > 1
    return n % 2 == 1 and all(n % divisor for divisor in range(3, isqrt(n) + 1, 2))


def main(limit: int) -> None:
    primes = dtm.filter(is_prime, range(limit))
    print(f"{len(primes)} primes below {limit}, the last ones {primes[-3:]}")


parser = argparse.ArgumentParser(description="count primes")
parser.add_argument("limit", type=int, nargs="?", default=200_000)
dtm.start(main, parser.parse_args().limit)
