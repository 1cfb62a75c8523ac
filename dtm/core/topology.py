"""Who stands near whom: the fixed tree along which idle workers wait for work.

The *spread tree* is 4-ary and rooted at rank 0.  First waves of a map go down it,
the end of the run too, and a silent worker has a lifeline at its parent and at each
of its children, so work anywhere reaches idle workers everywhere.  Two neighbours a
worker on the average, five at most; ``log4 P`` deep.

Rejected, after trying them in the simulator: the cyclic digits of Saraswat et al.
(2011) and long links besides.  A lifeline outlives its reason: a worker that has found
work elsewhere still gets answers to the others, and the victim gives away what it
should have kept.  With eleven lifelines a worker each item was moved 1.6 times at the
end of a map; with two, steals fell from 38 to 4 a worker.  Also: a ring, whose
diameter is P; all pairs, whose state is P.
"""

from __future__ import annotations

BASE = 4


def tree_parent(rank: int) -> int | None:
    """Return the parent in the spread tree, None for the root."""
    return (rank - 1) // BASE if rank else None


def tree_children(rank: int, size: int) -> list[int]:
    """Return the children in the spread tree."""
    first = BASE * rank + 1
    return list(range(first, min(first + BASE, size)))


def neighbours(rank: int, size: int) -> tuple[int, ...]:
    """Return where a worker ties lifelines before it falls silent."""
    parent = tree_parent(rank)
    return (*(() if parent is None else (parent,)), *tree_children(rank, size))
