"""The communication manager for clusters: MPI, by way of mpi4py.

Invariants:

* No MPI call blocks after the constructor and before ``Finalize``; all are made
  under one lock, so the thread level SERIALIZED is enough.
* Who sleeps can be woken: a rank sleeps long only when all others can ring its
  :mod:`~dtm.comm.mpi.doorbell` and nothing of its own is under way.  Else it looks
  at MPI each millisecond, and each ten when all has been quiet.
* ``Finalize`` is called when every rank has said that it is ready for it (a barrier that
  is tested, not waited for).  A rank of the root's machine that does not come to it, since
  its interpreter is stuck in C code, is ended by its :mod:`~dtm.comm.mpi.exit_switch`; then the
  root tells the others to finalise without the barrier.  Where a rank is dead, or stuck
  on another machine, MPI is left as it is, and the launcher ends what remains of the
  job; ``abort`` ends it now.

Threads: as the interface says.  Of several threads in ``wait`` one *leads*: it looks after
MPI and sleeps on the descriptors; the others return when it does.  What threads share has
one lock, ``_lock``, and each decision is taken on one reading under it.  It is never held
while a thread sleeps.

====================== ============================= ============================ =========
attribute              written by                    read by                      under
====================== ============================= ============================ =========
``_mail``, ``_watch``  any method                    any method                   ``_lock``
``_asleep``            ``wait``                      ``wait``, ``send``,          ``_lock``
                                                     ``receive``
``_news``, ``_gone``   ``send``, ``wait``, ``lost``  all but ``wake``             ``_lock``
``_stirred``,          ``wait``, ``close``           the same                     ``_lock``
``_traffic_seen``
``_led``               ``wait``                      ``wait``                     ``_turn``
``_spinning``          the leader                    the leader                   nothing
``_bell``              see :mod:`~dtm.comm.mpi.doorbell`
``_wake_write``        the constructor, ``close``    ``wake``, which signal       nothing
                                                     handlers call
====================== ============================= ============================ =========

Rejected: a progress thread in C or by ``MPI_THREAD_MULTIPLE``.  Many sites
provide no such level, and a thread that polls takes the time of a worker.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import threading
from collections.abc import Sequence
from enum import Enum
from itertools import accumulate, pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from dtm.comm.base import Frame, LostPeer
from dtm.comm.forked import Forkable
from dtm.comm.mpi import exit_switch
from dtm.comm.mpi.deathwatch import Deathwatch
from dtm.comm.mpi.doorbell import Doorbell
from dtm.comm.mpi.library import initialise, load, yield_when_idle
from dtm.comm.mpi.messages import Mail
from dtm.comm.spinning import LOOK_SECONDS, Spinning
from dtm.errors import CommunicationError

if TYPE_CHECKING:
    from mpi4py import MPI

_SETTLE = 0.010
_SHORT_SLEEP = 0.001
_LONGEST_SLEEP_FAR = 0.010
_LONGEST_SLEEP_NEAR = 0.100
_SLOWEST_TRANSFER = 200e6
_ABORT_LOCK_SECONDS = 1.0
_STUCK = 0.5  # the part of the time for ``close`` after which a rank that is missing is stuck
_FINALIZE_SECONDS = 0.5  # at least, where ``Finalize`` is called without a barrier


class _Agreement(Enum):
    """What the ranks that close have agreed upon."""

    ALL = "every rank finalises MPI"
    ENDED = "every rank does, those that were stuck by their exit switches"
    NONE = "MPI is left as it is"


class MpiManager(Forkable):
    """Joins the ranks of ``MPI.COMM_WORLD``, on a duplicate of it."""

    def __init__(self) -> None:
        super().__init__()
        self._mpi = load()
        self._ours = initialise(self._mpi)
        self._to_finalize = False  # by ``quit``
        self._turn = threading.Condition(threading.Lock())
        self._led = False  # under _turn: whether a thread leads the waiting
        self._lock = threading.Lock()  # for all that follows, and for _mail and _watch
        self._asleep = False  # whether the leader may sleep for long
        self._spinning = Spinning()  # the leader's
        self._news: list[LostPeer] = []
        self._gone: set[int] = set()
        self._stirred = monotonic()  # when there was traffic last
        self._traffic_seen = 0
        try:
            self._join()
        except (OSError, self._mpi.Exception) as error:
            message = f"cannot join the MPI run: {error}"
            raise CommunicationError(message) from error

    def _join(self) -> None:
        self._comm: MPI.Comm = self._mpi.COMM_WORLD.Dup()
        self._comm.Set_errhandler(self._mpi.ERRORS_RETURN)
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        self._bell = Doorbell(self.size)
        self._watch = Deathwatch(self.rank)
        self._mail = Mail(self._mpi, self._comm, self._bell.ring)
        card = (self._mpi.Get_processor_name(), self._bell.card, self._watch.card)
        hosts, bells, watches = zip(*self._gather(card), strict=True)
        self.hosts = hosts
        self._bell.meet(self.rank, bells)
        self._switch = exit_switch.install() if self._ours and self.rank else ()
        self._watch.connect(watches, self._bell.neighbours, self._switch[1:])
        self._comm.Barrier()
        self._watch.accept()
        ranks_here = len(self._bell.neighbours) + 1
        self._far = ranks_here < self.size
        # Who has to look at MPI anyway looks where ranks outnumber cores, too.
        self._crowd = 0 if self._far else ranks_here
        self._open_poller()
        self._yielded = self._ours and yield_when_idle(False)

    def _gather(self, card: object) -> list[Any]:
        """Return the cards of all ranks, in order.

        Not by mpi4py's ``allgather`` of objects: that leaves an attribute with MPI whose
        destructor needs the interpreter, for which a rank that is ended by its exit switch would
        wait.
        """
        own = pickle.dumps(card)
        lengths = memoryview(bytearray(8 * self.size)).cast("q")
        self._comm.Allgather(
            [memoryview(struct.pack("q", len(own))), 8, self._mpi.BYTE],
            [lengths.cast("B"), 8, self._mpi.BYTE],
        )
        every = bytearray(sum(lengths))
        begins = [0, *accumulate(lengths)]
        self._comm.Allgatherv(
            [own, self._mpi.BYTE], [every, list(lengths), begins[:-1], self._mpi.BYTE]
        )
        return [pickle.loads(every[begin:end]) for begin, end in pairwise(begins)]

    def _open_poller(self) -> None:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller = select.poll()
        for descriptor in (self._wake_read, self._bell.fileno(), self._watch.fileno()):
            if descriptor >= 0:
                self._poller.register(descriptor, select.POLLIN)

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """See :meth:`CommunicationManager.send`."""
        if rank == self.rank or not 0 <= rank < self.size:
            message = f"cannot send to rank {rank} from rank {self.rank} of {self.size}"
            raise ValueError(message)
        with self._lock:
            if rank in self._gone:
                return
            try:
                self._mail.send(rank, frames)
            except self._mpi.Exception as error:
                self._note_dead([LostPeer(rank, f"MPI cannot send to it: {error}")])
            leader_is_needed = self._asleep and self._mail.load > 0
        self._bell.ring(rank)
        if leader_is_needed:
            self.wake()

    def receive(self) -> list[tuple[int, list[Frame]]]:
        """See :meth:`CommunicationManager.receive`."""
        with self._lock:
            try:
                messages = self._mail.receive()
            except self._mpi.Exception as error:
                message = f"MPI fails to receive: {error}"
                raise CommunicationError(message) from error
            leader_is_needed = self._asleep and self._mail.load > 0
        if leader_is_needed:
            self.wake()
        return messages

    def wait(self, timeout: float) -> None:
        """See :meth:`CommunicationManager.wait`."""
        with self._turn:
            if self._led:
                self._turn.wait(timeout)
                return
            self._led = True
        try:
            self._lead(monotonic() + timeout)
        finally:
            if self._asleep:  # only the leader changes it, so the leader may read it like this
                with self._lock:
                    self._asleep = False
                self._bell.decline_bells()
            with self._turn:
                self._led = False
                self._turn.notify_all()

    def _lead(self, deadline: float) -> None:
        """Look at MPI and sleep, by turns, until there is a reason to return."""
        while True:
            with self._lock:
                pause = self._look(deadline)
                late = self._mail.receivers() if pause and self._mail.sending else ()
            if pause is None:
                return
            for rank in late:
                self._bell.ring(rank)
            if self._sleep(pause):
                return

    def _look(self, deadline: float) -> float | None:
        """Let MPI work; return how long to sleep, None if ``wait`` has to return.  Under the lock.

        Before a sleep that only a bell may end early, this rank asks to be rung, and looks again.
        """
        try:
            found = self._mail.look()
        except self._mpi.Exception:
            return None  # receive runs into the same and says so
        self._note_traffic()
        now = monotonic()
        if found or self._news or now >= deadline:
            return None
        pause = min(self._pause(now - self._stirred, now), deadline - now)
        if pause > 0 and not self._asleep:
            self._asleep = True
            self._bell.ask_for_bells()
            return self._look(deadline)
        return pause

    def _note_traffic(self) -> None:
        if self._mail.traffic != self._traffic_seen:
            self._traffic_seen = self._mail.traffic
            self._stirred = monotonic()

    def _pause(self, since_traffic: float, now: float) -> float:
        """Say how long to sleep when there has been no sign of traffic for so many seconds."""
        if load := self._mail.load:
            return 0.0 if since_traffic < _SHORT_SLEEP + load / _SLOWEST_TRANSFER else _SHORT_SLEEP
        if since_traffic < LOOK_SECONDS and self._spinning.pays(self._crowd, now):
            return 0.0
        if self._far:
            return min(max(since_traffic / 10, _SHORT_SLEEP), _LONGEST_SLEEP_FAR)
        # What has just been sent, or rung for, may need MPI to be called a little longer.
        return max(_SHORT_SLEEP, since_traffic) if since_traffic < _SETTLE else _LONGEST_SLEEP_NEAR

    def _sleep(self, pause: float) -> bool:
        """Sleep, or only yield the core; tell whether ``wait`` has to return.  Without the lock."""
        if pause <= 0:
            self._spinning.give_way()
        over = False
        for descriptor, _ in self._poller.poll(pause * 1000):
            if descriptor == self._bell.fileno():
                self._bell.drain()
                with self._lock:
                    self._stirred = monotonic()
            elif descriptor == self._wake_read:
                self._drain_wakes()
                over = True
            else:
                with self._lock:
                    self._note_dead(self._watch.check())
        return over

    def _drain_wakes(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def wake(self) -> None:
        """See :meth:`CommunicationManager.wake`."""
        try:
            os.write(self._wake_write, b"\0")
        except OSError:  # full of wakes that nobody has read yet; or closed
            return

    def lost(self) -> list[LostPeer]:
        """See :meth:`CommunicationManager.lost`."""
        with self._lock:
            self._note_dead(self._watch.check())
            news, self._news = self._news, []
        return news

    def absent(self) -> set[int]:
        """See :meth:`CommunicationManager.absent`."""
        with self._lock:
            return set(self._gone)

    def _note_dead(self, dead: Sequence[LostPeer]) -> None:
        """Note who is dead.  Under the lock."""
        for peer in dead:
            if peer.rank not in self._gone:
                self._gone.add(peer.rank)
                self._mail.abandon(peer.rank)
                self._news.append(peer)

    def close(self, timeout: float) -> None:
        """See :meth:`CommunicationManager.close`.

        Ends MPI if it was started here and every rank closes within ``timeout``.
        """
        began = monotonic()
        deadline = began + timeout
        with self._lock:
            self._watch.farewell()
        agreed = self._agree(began + _STUCK * timeout, deadline)
        if self._yielded:  # ``Finalize`` waits
            yield_when_idle(True)
        self._close_descriptors()
        if agreed is _Agreement.ALL:
            self._comm.Free()
            self._to_finalize = not self._ours
            if self._ours:
                self._mpi.Finalize()
        elif agreed is _Agreement.ENDED:
            exit_switch.finalize(max(_FINALIZE_SECONDS, deadline - monotonic()))

    def _agree(self, patience: float, deadline: float) -> _Agreement:
        """Get our messages out and take in those of the others, until all have done so."""
        barrier: MPI.Request | None = None
        while (now := monotonic()) < deadline:
            with self._lock:
                try:
                    self._mail.receive()
                    if self._gone:
                        break
                    if barrier is None and not self._mail.sending:
                        barrier = self._comm.Ibarrier()
                    if barrier is not None and barrier.Test():
                        return _Agreement.ALL
                    if self._ours and self._is_ended(now >= patience):
                        return _Agreement.ENDED
                except self._mpi.Exception:
                    break
                self._note_traffic()
                pause = 0.0 if now - self._stirred < _SHORT_SLEEP else _SHORT_SLEEP
            self._sleep(pause)
        return _Agreement.NONE

    def _is_ended(self, late: bool) -> bool:
        """Whether the root has ended who is stuck; on the root: do so, if it is ``late``."""
        if self.rank:
            return self._mail.end_announced()
        stuck = self._watch.overdue() if late else set()
        if not stuck or not self._watch.press(stuck):
            return False
        self._mail.announce_end(set(range(1, self.size)) - stuck)
        return True

    def _close_descriptors(self) -> None:
        self._bell.close()
        self._watch.close()
        pipe = self._wake_read, self._wake_write
        self._wake_write = -1
        for descriptor in pipe:
            os.close(descriptor)

    def _close_copies(self) -> None:
        self._close_descriptors()
        for descriptor in self._switch:  # which the worker itself keeps open to its end
            os.close(descriptor)

    def quit(self, status: int) -> NoReturn:
        """End this process, after ``close``.  From any thread.

        By way of the C library: a process that has not run its exit handlers counts as
        failed with MPICH, whose launcher then kills the others.  Where the program has initialised
        MPI, this rank waits here until the root's program finalises it, or the launcher would
        kill the root.  No other thread ends this process first: mpi4py keeps the interpreter.
        """
        if self._to_finalize:
            self._mpi.Finalize()
        from ctypes import CDLL

        CDLL(None).exit(status)
        os._exit(status)

    def abort(self, status: int) -> None:
        """End the whole MPI job at once, this process too.  From any thread."""
        self._lock.acquire(timeout=_ABORT_LOCK_SECONDS)
        self._mpi.COMM_WORLD.Abort(status)
