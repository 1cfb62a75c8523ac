"""Ctrl-C in a run that goes on: it ends what ``main`` waits for, and nothing else.

A run inside a program outlives an interrupt: in a notebook and in an interactive session it ends
the call of the cell, and the next call works.  So an exception may be raised only where what
it leaves behind is in order.  When SIGINT comes, the innermost frame of dtm's says where the main
thread stands:

* no frame of dtm's: in the program.  ``KeyboardInterrupt`` is raised at once, as without dtm;
* a frame that runs bodies, or one of the doors that users call: the code below it is a task's, or
  an iterable's.  It is raised at once.  The item fails by it, on whatever worker its call
  is waited for, and it passes on, up to ``main``; on the way each call that is waited for is
  dropped;
* any other: dtm is about something that it must not leave half done.  Then the exception is *due*:
  the next wait raises it.  A wait that sleeps is woken.  If ``main`` goes on without one, the
  signal is sent again after ``AGAIN_SECONDS``.

What ends the run (a worker is lost) is raised the same way, but never in the program's own code: it
is told by the next call.

The others drop what they hold of such a call.  The workers that serve end what they run of it too
(:class:`ItemInterrupts`): an item without an end would keep its worker for good.  There SIGINT says
so to the main thread, which finds the call on its stack or does nothing: so Ctrl-C at a terminal,
which reaches all processes, does nothing there.  Items that wait for calls of their own on a stack
that has been put aside are not found, and go on.

The handler is there only where Python's own would be.  Others set that one again (a kernel of
Jupyter does for each cell), so :meth:`Interrupts.guard` looks at each call.

Shared attributes: ``runner.due``, set by the main thread and withdrawn by that which sends again;
``ItemInterrupts._wanted``, an atomic dictionary that any thread adds to.

Threads: the main thread, but for ``raise_soon`` and ``interrupt``.

Rejected: to raise it anywhere and to begin a new run.  It would start workers anew for each
interrupt, and what runs of other calls would be lost.
"""

from __future__ import annotations

import os
import signal
import threading
from _thread import start_new_thread
from contextlib import suppress
from enum import Enum
from time import sleep
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from dtm.run.runner import Runner
from dtm.run.seeding import Streams

if TYPE_CHECKING:
    from signal import getsignal
else:
    from _signal import getsignal  # that of signal makes an enumeration's member each time

AGAIN_SECONDS = 0.05
MOST_TIMES = 100

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_DOORS = tuple(
    os.path.join(_PACKAGE, name)
    for name in ("dtm.py", "door.py", "lazy.py", "progress.py", "guard.py", "tolerance.py",
                 f"integrations{os.sep}")
)  # fmt: skip
_BODIES: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (Runner._single, Runner._strip, Streams.results)  # noqa: SLF001
)
_LIMITED = os.path.join(_PACKAGE, "time_limit.py"), "limited"


class Place(Enum):
    """Where the main thread stands."""

    PROGRAM = "outside of dtm"
    BODY = "in code of users that dtm has called"
    DTM = "in dtm"


def place_of(frame: FrameType | None) -> Place:
    """Tell where a frame stands."""
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if file.startswith(_PACKAGE):
            called = file.startswith(_DOORS) or (file, code.co_name) == _LIMITED
            return Place.BODY if called or code in _BODIES else Place.DTM
        frame = frame.f_back
    return Place.PROGRAM


class Interrupts:
    """Takes SIGINT for the root of a run inside a program.

    Args:
        runner: of the root.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._main = threading.get_ident()
        self._sent = False  # by this process, to raise what ends the run
        self._insists = False
        runner.guard = self.guard
        self.take()

    def take(self) -> None:
        """Take SIGINT, if nobody else does."""
        if getsignal(signal.SIGINT) is signal.default_int_handler:
            with suppress(ValueError):  # main of another interpreter
                signal.signal(signal.SIGINT, self._on_signal)

    def guard(self) -> None:
        """(Each call and wait) be ready for SIGINT; raise what has ended the run."""
        runner = self._runner
        if not runner.thread.main:
            return
        if runner.fault is not None:
            raise runner.fault
        self.take()
        if not runner.context().depth:
            runner.renew_base()

    def give_back(self) -> BaseException | None:
        """Take SIGINT no longer; return what was due and has not been raised."""
        runner = self._runner
        runner.guard = None
        if getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        due, runner.due = runner.due, None
        return due

    def raise_soon(self, fault: BaseException) -> None:
        """Raise what ends the run out of the call that ``main`` makes now, or makes next."""
        self._runner.fault = fault
        self._runner.interrupted = True
        self._runner.world.nudge()
        if getsignal(signal.SIGINT) == self._on_signal:
            self._sent = True
            signal.pthread_kill(self._main, signal.SIGINT)

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        runner = self._runner
        place = place_of(frame)
        if place is Place.DTM:
            if not self._sent:
                runner.due = runner.due or KeyboardInterrupt()
            runner.world.nudge()
            self._insist()
            return
        if self._sent:
            self._sent = False
            if place is Place.BODY and runner.fault is not None:
                raise runner.fault
            return
        runner.interruption = runner.due or KeyboardInterrupt()
        runner.due = None
        raise runner.interruption

    def _insist(self) -> None:
        if not self._insists:
            self._insists = True
            start_new_thread(self._send_again, ())  # takes no lock, as Thread.start does

    def _send_again(self) -> None:
        for _ in range(MOST_TIMES):
            sleep(AGAIN_SECONDS)
            if (self._runner.due is None and not self._sent) or self._runner.ended:
                break
            signal.pthread_kill(self._main, signal.SIGINT)
        else:
            self._runner.due = None
        self._insists = False


class ItemInterrupts:
    """Ends what a worker runs of calls that have been interrupted.

    Args:
        runner: of the worker.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._main = threading.get_ident()
        self._wanted: dict[tuple[int, int], int] = {}  # how often each is looked for yet
        self._sends = False
        runner.interrupt_items = self.interrupt
        signal.signal(signal.SIGINT, self._on_signal)

    def interrupt(self, owner: int, key: int) -> None:
        """(Any thread) end what runs of a call, soon."""
        self._wanted[owner, key] = MOST_TIMES
        if not self._sends:
            self._sends = True
            start_new_thread(self._send, ())

    def _send(self) -> None:
        while self._wanted and not self._runner.ended:
            signal.pthread_kill(self._main, signal.SIGINT)
            sleep(AGAIN_SECONDS)
            if not self._wanted:
                self._sends = False  # who adds something from here on sends it by itself

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        if not self._wanted:
            return
        running = _calls_on(frame)
        for name, times in list(self._wanted.items()):
            if name not in running or not times:
                del self._wanted[name]
            elif place_of(frame) is Place.BODY:
                del self._wanted[name]
                self._runner.interruption = KeyboardInterrupt()
                raise self._runner.interruption
            else:
                self._wanted[name] = times - 1


def _calls_on(frame: FrameType | None) -> set[tuple[int, int]]:
    """Return the owners and keys of the calls whose items a stack runs."""
    found = set()
    while frame is not None:
        if frame.f_code in _BODIES:
            call = frame.f_locals["call"]
            found.add((call.owner, call.key))
        frame = frame.f_back
    return found
