"""What a worker does when others are gone.

The root ends the run: :class:`WorkerLostError` comes out of ``main``, wherever that stands.  Where
the root is gone, its workers end at once, without a word.

A worker that cannot reach another, which the root may well reach, tells the root.  The root waits
for ``HEARSAY_SECONDS``: if that worker has died, it will find out by itself, and know how.  Then it
takes the other's word for it and ends the run.  To go on is no choice: what the two have for each
other does not arrive.

Shared attributes:

    =========  ==========  ==========  ===========================
    attribute  written by  read by     under
    =========  ==========  ==========  ===========================
    due        any thread  any thread  worker's lock to write it
    _told      any thread  any thread  worker's lock
    =========  ==========  ==========  ===========================

Threads: under the worker's lock.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any, ClassVar, Protocol

from dtm.comm.base import LostPeer
from dtm.core.messages import Broken, Message
from dtm.core.scheduler import Scheduler
from dtm.errors import WorkerLostError

HEARSAY_SECONDS = 1.0
NEVER = float("inf")


class Worker(Protocol):
    """What this needs of the worker that it belongs to."""

    comm: Any
    lock: Any
    scheduler: Scheduler

    def send(self, to: int, message: Message) -> None:
        """Send a message.  Called with the lock held."""

    def fail(self, error: BaseException) -> None:
        """(Root) end the run with an error.  Called with the lock held."""


class Losses:
    """The workers that are gone, as one worker sees it.

    Attributes:
        due: (root) when it believes what another worker has told; infinity if none has.
    """

    SHARED: ClassVar = {"_told": "worker.lock"}
    SHARED_READ_FREELY: ClassVar = {"due": "worker.lock"}

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.due = NEVER
        self._told = ""

    def notice(self, peer: LostPeer) -> None:
        """Act on the loss of a worker that this one has noticed itself."""
        worker = self.worker
        if worker.scheduler.stopping:
            return
        if peer.rank == 0:
            os._exit(1)
        rank, hosts = worker.comm.rank, worker.comm.hosts
        text = f"worker {peer.rank} on {hosts[peer.rank]} was lost"
        if rank == 0:
            worker.fail(WorkerLostError(f"{text}: {peer.reason}"))
            return
        own = f"worker {rank} on {hosts[rank]}"
        worker.send(0, Broken(f"{text} to {own}: {peer.reason}", peer.rank))

    def hear(self, reason: str) -> None:
        """(Root) note that a worker cannot reach another; the first to tell counts."""
        if self.due == NEVER:
            self._told = reason
            self.due = perf_counter() + HEARSAY_SECONDS

    def believe(self, now: float) -> None:
        """(Root) end the run for what another worker has told, if that is due."""
        if now < self.due:
            return
        self.due = NEVER
        if not self.worker.scheduler.stopping:
            reason = f"{self._told} (this worker, the root, has lost neither of the two)"
            self.worker.fail(WorkerLostError(reason))
