"""A map whose longest item comes last: what a report of its run says, and what that changes.

    DTM_TRACE=before mpirun -n 4 python examples/long_item_last.py
    dtm report before
    DTM_TRACE=after mpirun -n 4 python examples/long_item_last.py longest-first
    dtm report after

A case of a parameter study takes as long as it is large; here it only sleeps for so long.
"""

import sys
import time

from dtm import dtm


def evaluate(size):
    time.sleep(size / 100)
    return size * size


def main():
    sizes = [4, 6, 5, 7] * 20 + [100]
    order = sorted(sizes, reverse=True) if "longest-first" in sys.argv else sizes
    began = time.perf_counter()
    total = sum(dtm.map(evaluate, order))
    print(f"sum {total}")
    print(f"{time.perf_counter() - began:.2f} s", file=sys.stderr)


dtm.start(main)
