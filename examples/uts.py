"""Unbalanced Tree Search: count a tree that nobody can know before walking it.

::

    python examples/uts.py
    mpirun -n 4 python examples/uts.py --depth 10 --grain 1000 --check

The tree is the geometric one of Olivier et al., "UTS: An Unbalanced Tree Search
Benchmark" (LCPC 2006): a node is a SHA-1 digest, its children are the digests of
itself and a child's number, and the digest decides how many children there are.
Subtrees below two siblings may differ a thousandfold in size, so no division of
the work made beforehand holds.  With the default seed and branching, depth 10 is
the paper's tree T1 of 4,130,071 nodes; depth 9 has 1,031,269, depth 8 257,042.

The parallel program is a plain nested recursion: a task walks at most ``--grain``
nodes, then hands what it has found and not walked to ``dtm.map``, in two halves.
"""

import argparse
import time
from hashlib import sha1
from math import inf, log
from typing import NamedTuple

from dtm import dtm

Node = tuple[bytes, int]  # the digest, and the distance from the root

MOST_CHILDREN = 100  # the paper's limit


class Shape(NamedTuple):
    """A geometric tree whose expected branching is the same down to a given depth."""

    branching: float
    depth: int
    seed: int

    def root(self) -> Node:
        """Return the root: its digest comes from the seed alone."""
        return sha1(bytes(16) + self.seed.to_bytes(4, "big")).digest(), 0  # noqa: S324


def children(node: Node, shape: Shape) -> list[Node]:
    digest, depth = node
    if depth >= shape.depth:
        return []
    # 31 bits of the digest, as a number in [0, 1), pick from the geometric distribution.
    draw = (int.from_bytes(digest[16:], "big") & 0x7FFFFFFF) / 2**31
    drawn = int(log(1.0 - draw) / log(1.0 - 1.0 / (1.0 + shape.branching)))
    return [
        (sha1(digest + number.to_bytes(4, "big")).digest(), depth + 1)  # noqa: S324
        for number in range(min(drawn, MOST_CHILDREN))
    ]


def walk(found: list[Node], shape: Shape, grain: float) -> int:
    """Count nodes depth first, at most ``grain``; those found and not counted stay in the list."""
    counted = 0
    while found and counted < grain:
        found.extend(children(found.pop(), shape))
        counted += 1
    return counted


def search(found: list[Node], shape: Shape, grain: int) -> int:
    """Count the nodes below and including those given, by as many tasks as it takes."""
    counted = walk(found, shape, grain)
    if not found:
        return counted
    middle = len(found) // 2
    halves = [half for half in (found[:middle], found[middle:]) if half]
    return counted + sum(dtm.map(search, halves, shape=shape, grain=grain))


def main(shape: Shape, grain: int, *, check: bool) -> int:
    begin = time.perf_counter()
    counted = search([shape.root()], shape, grain)
    seconds = time.perf_counter() - begin
    print(f"{counted} nodes")
    print(f"{seconds:.3f} s in parallel, tasks of at most {grain} nodes")
    if not check:
        return 0
    begin = time.perf_counter()
    expected = walk([shape.root()], shape, inf)
    print(f"{time.perf_counter() - begin:.3f} s sequentially, {expected} nodes")
    return 0 if counted == expected else 1


def run() -> int:
    parser = argparse.ArgumentParser(description="unbalanced tree search")
    parser.add_argument("--branching", type=float, default=4.0, help="expected children of a node")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--grain", type=int, default=1000, help="nodes walked by one task")
    parser.add_argument("--check", action="store_true", help="count sequentially too, and compare")
    args = parser.parse_args()
    shape = Shape(args.branching, args.depth, args.seed)
    status: int = dtm.start(main, shape, args.grain, check=args.check)
    return status


if __name__ == "__main__":
    raise SystemExit(run())
