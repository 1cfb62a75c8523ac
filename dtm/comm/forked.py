"""What becomes of a manager in a process that was forked by its worker: it falls silent.

A task may fork (``os.fork``, the fork method of ``multiprocessing``, the ``preexec_fn`` of
``subprocess``).  The child has a copy of the manager, but is no worker: a byte that it
wrote to a socket would come between the bytes of its parent, and an MPI call would change
memory that it shares with other ranks, which crashes those.  So in the child each
manager

* becomes an :class:`Inherited`, whose methods send nothing and receive nothing;
* closes its copies of the parent's descriptors, for a peer notices the death of a worker
  by the end of its connections, which a copy would keep open.

Nothing is unregistered from a selector: parent and child share one, in the kernel.

Threads: the one that forks; it is the only thread of the child.

Rejected: to compare process ids in each method.  That is a system call a message, and one
method that forgets it is enough.  And to raise an error: ``print`` in a child, which
multiprocessing flushes at its end, comes here too.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from time import sleep
from weakref import WeakSet

from dtm.comm.base import CommunicationManager, Frame, LostPeer

forkable: WeakSet[Forkable] = WeakSet()


class Inherited(CommunicationManager):
    """The copy of a manager in a forked child: it joins nobody."""

    forked = True

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Send nothing."""

    def receive(self) -> list[tuple[int, list[Frame]]]:
        """Nothing ever comes."""
        return []

    def wait(self, timeout: float) -> None:
        """Sleep for the whole time: nothing comes, and nobody is left to wake this thread."""
        sleep(max(0.0, timeout))

    def wake(self) -> None:
        """There is no other thread."""

    def lost(self) -> list[LostPeer]:
        """Nobody can be lost."""
        return []

    def close(self, timeout: float) -> None:
        """The copies of the descriptors are closed already, and the run is the parent's."""

    def abort(self, status: int) -> None:
        """End this process alone, not the run."""
        os._exit(status)

    quit = abort


class Forkable(CommunicationManager):
    """A manager that has descriptors or memory which a forked child must not use."""

    def __init__(self) -> None:
        forkable.add(self)

    @abstractmethod
    def _close_copies(self) -> None:
        """In a forked child: close the descriptors, without a word to anybody else."""


def _silence() -> None:
    for manager in tuple(forkable):
        with suppress(OSError):
            manager._close_copies()  # noqa: SLF001 - meant for this module alone
        manager.__class__ = Inherited  # type: ignore[assignment]
    forkable.clear()


os.register_at_fork(after_in_child=_silence)
