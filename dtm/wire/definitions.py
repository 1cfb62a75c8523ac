"""Definitions travel once: classes and code that a worker has been sent already.

A message to a worker refers to classes and code by their keys (:mod:`dtm.wire.reductions`).
The definitions that this worker has not been sent yet go in front of it.  Messages of a
pair of workers arrive in order, so what was sent is there when it is referred to.

What a receiver holds for a sender is bounded in bytes: when the bound is reached, the sender
says with its next message that the receiver is to let go of all of it, and both begin anew.

Invariant: what a sender takes for held is held by the receiver.  A message that is not sent
after all is never noted; a request to let go that is lost leaves too much, never too little.

Results that pass through other workers (``Relayed``) carry their definitions in themselves, since
they may be overtaken.

Threads: none of this is locked; the worker's lock covers it.

Rejected: letting the receiver choose what to let go: it must then be able to ask for it again,
and the message that needs it has to wait.
"""

from __future__ import annotations

from typing import Final

from dtm.wire import rebuilding

MOST_BYTES: Final = 8 << 20
"""How much of definitions each worker holds for each other."""

Definitions = dict[bytes, bytes]


class DefinitionSender:
    """What each other worker has been sent."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._told: dict[int, set[bytes]] = {}
        self._bytes: dict[int, int] = {}

    def note(self, rank: int, used: Definitions) -> tuple[Definitions, bool] | None:
        """Return what must go in front of a message that uses these; None if nothing.

        The message must be sent.  The second value says whether the receiver is to let go of
        all that it holds for this worker first.
        """
        told = self._told.setdefault(rank, set())
        new = {key: used[key] for key in used.keys() - told}
        if not new:
            return None
        size = sum(map(len, new.values()))
        begin_anew = bool(told) and self._bytes.get(rank, 0) + size > self._most
        if begin_anew:
            new = dict(used)
            told.clear()
            self._bytes[rank] = 0
            size = sum(map(len, new.values()))
        told.update(new)
        self._bytes[rank] = self._bytes.get(rank, 0) + size
        return new, begin_anew


class DefinitionReceiver:
    """What is held here for each other worker."""

    def __init__(self) -> None:
        self._held: dict[int, set[bytes]] = {}

    def take(self, source: int, new: Definitions, begin_anew: bool) -> None:
        """Hold what came in front of a message."""
        mine = self._held.setdefault(source, set())
        gone = set(mine) if begin_anew else set()
        if begin_anew:
            mine.clear()
        mine.update(new)
        rebuilding.held.update(new)
        for other in self._held.values():
            gone -= other
        for key in gone:
            rebuilding.let_go(key)
