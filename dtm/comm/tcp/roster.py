"""The root's list of a TCP run: who has joined, where they listen, who has gone.

Workers do not know each other's addresses.  They ask the root when they first
have something to say to a rank, and whoever asks for one that has not joined is
answered when it has.  So nobody keeps more than the addresses of its neighbours,
and a worker can join at any time.

A rank is given once: who has left, or was lost, does not come back under its number, for
messages to the old one may still be under way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dtm.comm.tcp.notices import Gone, Here, Notice, NotYet
from dtm.errors import CommunicationError


class Roster:
    """Who is who.

    Args:
        size: of the run.
        hosts: names of the machines, as far as they are known.
        reserved: ranks that are given only to who asks for them.
    """

    def __init__(self, size: int, hosts: list[str], reserved: Collection[int]) -> None:
        self.hosts = hosts
        self._reserved = frozenset(reserved)
        self._absent = dict.fromkeys(range(1, size))  # an ordered set
        self._addresses: dict[int, str] = {}
        self._gone: dict[int, str] = {}
        self._asking: dict[int, list[int]] = {}

    def absent(self) -> Sequence[int]:
        """Return the ranks that have not joined, in order."""
        return list(self._absent)

    def choose(self, claimed: int) -> int:
        """Return the rank for a worker that claims one, or any (-1).

        Raises:
            CommunicationError: it cannot have it; the text is for the worker.
        """
        if claimed in self._absent:
            return claimed
        size = len(self.hosts)
        if claimed >= size:
            raise CommunicationError(f"there is no rank {claimed} in this run of {size} workers")
        if claimed >= 0:
            raise CommunicationError(f"rank {claimed} of this run is taken")
        for rank in self._absent:
            if rank not in self._reserved:
                return rank
        raise CommunicationError(
            f"this run is full: it has {size} workers, and each rank is taken or reserved"
        )

    def enter(self, rank: int, host: str, address: str) -> list[int]:
        """Note that a rank has joined; return those who asked for it."""
        del self._absent[rank]
        self.hosts[rank] = host
        self._addresses[rank] = address
        return self._asking.pop(rank, [])

    def find(self, rank: int, who: int) -> Notice:
        """Return the answer to who asks for a rank."""
        if rank in self._absent:
            self._asking.setdefault(rank, []).append(who)
            return NotYet(rank)
        if rank in self._gone or rank not in self._addresses:
            return Gone(rank, self._gone.get(rank, ""))
        return Here(rank, self.hosts[rank], self._addresses[rank])

    def strike(self, rank: int, reason: str) -> None:
        """Note that a rank has left, or with a reason, that it is lost."""
        self._gone.setdefault(rank, reason)
        self._absent.pop(rank, None)
