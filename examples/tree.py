"""A recursive tree: every task makes tasks of its own and waits for them.

::

    python examples/tree.py
    mpirun -n 4 python examples/tree.py --depth 14 --branches 2

With a pool of processes this program would stand still as soon as each process
waited for its children: here a task that waits does not hold its worker up, so
the recursion may be as deep, and as lopsided, as it likes.
"""

import argparse

from dtm import dtm


def grow(depth: int, branches: int) -> tuple[int, int, set[int]]:
    """Grow a subtree; return its nodes, its leaves and the workers that took part."""
    here = {dtm.getWorkerId()}
    if depth == 0:
        return 1, 1, here
    # Keyword arguments of the map are passed on to the function, as they are.
    subtrees = dtm.map(grow, [depth - 1] * branches, branches=branches)
    nodes = 1 + sum(subtree[0] for subtree in subtrees)
    leaves = sum(subtree[1] for subtree in subtrees)
    return nodes, leaves, here.union(*(subtree[2] for subtree in subtrees))


def main(depth: int, branches: int) -> None:
    nodes, leaves, workers = grow(depth, branches)
    print(f"{nodes} nodes, {leaves} leaves")
    print(f"grown by workers {sorted(workers)}")


parser = argparse.ArgumentParser(description="grow a tree by nested maps")
parser.add_argument("--depth", type=int, default=8)
parser.add_argument("--branches", type=int, default=3)
args = parser.parse_args()
dtm.start(main, args.depth, args.branches)
