"""What a communication manager owes: frames from rank to rank, and nothing else.

A manager joins ``size`` workers, numbered 0 to ``size - 1``; rank 0 is the root,
the one that runs ``main``.  It moves *messages*.  A message is a list of one or
more *frames*, a frame any C-contiguous bytes-like object (``bytes``,
``bytearray``, ``memoryview``, ``pickle.PickleBuffer``).  A manager never looks
into a frame and knows nothing of tasks.

What every manager promises, and ``dtm.testing.conformance.check_communication_manager``
checks:

* **Order**: messages of one sender to one receiver arrive in the order of the
  ``send`` calls, each once, with its frames cut as they were.
* **Nobody blocks**: ``send`` returns without waiting for the receiver, whatever
  the sizes; two workers may send each other 100 MB at the same time.
* **Progress**: what was sent goes out even if the sender never calls again,
  provided that some thread of its process sits in ``wait``.
* **Quiet**: ``wait`` uses no processor time to speak of while nothing comes.

Threads: ``send``, ``receive``, ``lost`` and ``absent`` are called by one thread at a time (the
worker holds its lock).  ``wait`` is called without that lock, by any number of threads, at
the same time as everything else; ``stand_by`` likewise, by one, and ``alert`` by another.  ``wake``
may be called from any thread and from signal handlers.

Rejected: callbacks or queues that a manager fills from a thread of its own (the
interface of DEAP's dtm): five shared queues are no contract, and each hand-over
between threads costs more than the message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import NamedTuple

Frame = bytes | bytearray | memoryview


class LostPeer(NamedTuple):
    """A worker that is gone: its rank and what is known of the end ("killed by SIGKILL")."""

    rank: int
    reason: str


class CommunicationManager(ABC):
    """Joins the workers of one run.  An instance belongs to one worker (one rank).

    The constructor joins the run; it raises
    :class:`dtm.errors.CommunicationError` where that cannot be done.

    Attributes:
        rank: the number of this worker, ``0 <= rank < size``; 0 is the root.
        size: how many workers the run has.
        hosts: the name of the machine of each rank, for messages to people and
            for preferring near workers; as long as ``size``.
        carries_output: whether what this worker writes to its standard streams comes to the
            user's terminal without the root's help.
        ways_may_break: whether a connection between two workers may fail while the root reaches
            both.
        alters_threads: whether the launcher has set how many threads numeric libraries start
            on the workers (``OMP_NUM_THREADS`` …), so that the root limits its own too.
        shares_memory: whether all other workers read large frames from this one's memory.
        forked: whether this is the copy in a process which the worker has forked: it is no
            worker, and all methods do nothing (:mod:`dtm.comm.forked`).
    """

    rank: int
    size: int
    hosts: Sequence[str]
    carries_output: bool = False
    ways_may_break: bool = False
    alters_threads: bool = False
    shares_memory: bool = False
    forked: bool = False

    @abstractmethod
    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Send one message to another worker.  Does not block.

        The caller does not change the frames afterwards; the manager keeps them
        alive until they are out.  A message to a worker that is gone is dropped
        (``lost`` tells of it).  Sending to oneself, or to a
        rank that is none, is an error (``ValueError``).
        """

    @abstractmethod
    def receive(self) -> list[tuple[int, list[Frame]]]:
        """Return what has come, as ``(sender, frames)``, without waiting; ``[]`` if nothing."""

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Sleep until ``receive`` or ``lost`` may have something, until woken, or for ``timeout``.

        In seconds.  While a message waits to be received, it may return at once every time.
        Otherwise it may return early now and then, but not again and again.
        """

    @abstractmethod
    def wake(self) -> None:
        """Make the threads that sit in ``wait`` return; if none does, the next ``wait`` does."""

    def stand_by(self, timeout: float) -> bool:
        """Wait as a second thread does while the first runs a task; whether something ended it.

        Unlike ``wait`` it may be told not to mind what comes, see ``alert``.  To be called by one
        thread at a time.
        """
        self.wait(timeout)
        return True

    def alert(self, on: bool) -> bool:  # noqa: ARG002 - for those who can
        """Say whether ``stand_by`` minds what comes; return whether that can be said here.

        At first it does.  Where it can be said it wakes no thread, so the thread that stands by
        sleeps on while another one reads the messages.
        """
        return False

    @abstractmethod
    def lost(self) -> list[LostPeer]:
        """Return the workers found to be gone without having closed, each of them once."""

    def absent(self) -> Collection[int]:
        """Return the workers that have not joined so far, or are gone, in whatever way.

        A run that ends does not wait for them: ``close`` ends those who have not joined.
        """
        return ()

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Leave the run: get out what was sent, for at most ``timeout`` seconds, then let go.

        Called once, by one thread, when no other thread is inside.  A peer that
        has closed is not ``lost``.  Nothing may be called afterwards.
        """
