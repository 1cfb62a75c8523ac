"""Who stands near whom: the fixed graph along which idle workers wait for work.

Three kinds of edges:

* the 4-ary *spread tree* rooted at rank 0: first waves of a map go down it, the
  end of the run too;
* *cyclic digits* in base 4: write the rank in base 4 and turn one digit, as the
  lifeline graph of Saraswat et al. (2011) does; ``log4 P`` edges, diameter
  ``3 log4 P`` in one direction;
* two *long links*, which halve the typical distance.

The graph is made symmetric by nobody: an edge says whom a worker *asks*.

Rejected: a ring, whose diameter is P; all pairs, whose state is P.
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


def cyclic_neighbours(rank: int, size: int) -> list[int]:
    """Return the ranks that differ from ``rank`` by one turn of one base-4 digit."""
    found = []
    place = 1
    while place < size:
        digit = rank // place % BASE
        for turn in range(1, BASE):
            other = rank + ((digit + turn) % BASE - digit) * place
            if other < size:
                if other != rank:
                    found.append(other)
                break
        place *= BASE
    return found


def long_links(rank: int, size: int) -> list[int]:
    """Return two far ranks: half and a third of the way round."""
    return [(rank + size // 2) % size, (rank + size // 3) % size]


def neighbours(rank: int, size: int) -> tuple[int, ...]:
    """Return whom a worker asks for work before it falls silent, nearest kind first."""
    parent = tree_parent(rank)
    edges = [] if parent is None else [parent]
    edges += tree_children(rank, size)
    edges += cyclic_neighbours(rank, size)
    edges += long_links(rank, size)
    return tuple(dict.fromkeys(other for other in edges if other != rank))
