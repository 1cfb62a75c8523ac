"""A run inside a program: this process is the root from a point on, until another.

``with dtm.run():`` and ``dtm.start()`` begin one; the end of the block, ``dtm.stop()`` and the end
of the process end it; then the next may begin.  Its workers do not run the program: they serve
(:mod:`dtm.run.serving`), and what they need of ``__main__`` and of modules that nobody else can
import goes to them by value (:mod:`dtm.wire.imports`).  So it works where there is no program
that could be run again: in an interactive session, a notebook, ``python -c``, a test.

States of the process, beside those of :mod:`dtm.run.runtime`: IDLE -> INSIDE (begun) -> IDLE.

How a run ends here:

* the block ends, by an exception too, ``stop`` is called, the process ends: as a run of ``start``
  does when ``main`` returns; calls under way are dropped;
* a worker is lost: the call that ``main`` waits for raises it, or the next one does; each later one
  as well, until the run is ended.  The process goes on;
* the process is killed: its workers see that, and end.

Ctrl-C does not end it (:mod:`dtm.run.interrupts`), and SIGTERM is the program's business.

``dtm run --inside`` begins the run before the program (:func:`lead`); what the program itself
begins and ends is then a part of that.  A worker that runs the program on its way to
``dtm.start(main)`` has no workers of its own: there the block is a run of one.

In a forked child there is no run, and the block's end does nothing.

Threads: the main thread.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dtm.errors import CommunicationError, OptionError, RunStateError
from dtm.launch.local_workers import interrupts_blocked, is_invited, start_servers
from dtm.options import Options
from dtm.run import runtime
from dtm.run.interrupts import Interrupts, ItemInterrupts
from dtm.run.managers import join
from dtm.run.stack_chunks import call_with_room
from dtm.wire.imports import imports
from dtm.wire.pickling import dumps_flat

if TYPE_CHECKING:
    from dtm.comm.base import CommunicationManager

MANAGERS = (None, "local", "serial")
_HOW = "`dtm run --inside PROGRAM` lets all of them serve the program that one of them runs"


class InsideRun(runtime.Run):
    """A run that begins and ends inside of the program of its root.

    Args:
        given: whether the command has begun it, so that it lasts for the whole program.
    """

    def __init__(self, comm: CommunicationManager, chosen: Options, *, given: bool = False) -> None:
        super().__init__(comm, chosen, implicit=False)
        self.given = given
        self._interrupts: Interrupts | None = None
        self._undo = ExitStack()

    def begin(self) -> None:
        """Begin the run; the caller goes on as its root."""
        imports.stand_apart()
        streams = self.runner.streams
        if streams is not None:
            self._undo.callback(streams.restore, streams.save())
        if self.comm.alters_threads and self.comm.size > 1:
            from dtm.launch.cores import as_in_workers

            self._undo.enter_context(as_in_workers())
        super().begin()
        atexit.register(self.finish)

    def finish(self) -> None:
        """End the run, unless it is over, or that of the process which has forked this one."""
        if self.over or self.runner.forked or runtime.current is not self:
            return
        atexit.unregister(self.finish)
        if self._interrupts is not None:
            self._interrupts.take()
        due = None
        try:
            super().finish()
        finally:
            if self._interrupts is not None:
                due = self._interrupts.give_back()
            runtime.current = None
            imports.stand_together()
            self._undo.close()
        if due is not None:
            raise due

    def follow(self) -> None:
        """(Another worker) work until the run is over."""
        ItemInterrupts(self.runner)
        super().follow()

    def _catch_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._interrupts = Interrupts(self.runner)
            self._take_stacks_signal()

    def _on_end(self, reason: BaseException | None) -> None:
        if self.comm.rank or self._interrupts is None:
            super()._on_end(reason)
        elif reason is not None and self.runner.fault is None and not self.over:
            self._interrupts.raise_soon(reason)


class Block:
    """What ``dtm.run`` returns: a run for the time of a ``with`` block, again and again.

    Attributes:
        size: how many workers it has; 0 outside of the block.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._run: InsideRun | None = None
        self.size = 0

    def __enter__(self) -> Self:
        self._run = begin(self._given)
        self.size = self._run.comm.size
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run, self._run, self.size = self._run, None, 0
        if run is not None and not run.given:
            run.finish()

    def __repr__(self) -> str:
        state = f"{self.size} workers" if self.size else "outside of its block"
        return f"<dtm.run: {state}>"


def options_of(given: dict[str, Any]) -> Options:
    """Return the options of a run: those of the program, as its arguments and the environment say.

    Raises:
        OptionError: one is unknown, impossible, or makes no sense for such a run.
    """
    chosen = Options(**vars(runtime.options))
    chosen.update(given)
    chosen = chosen.overridden(os.environ)
    if chosen.workersReturn:
        raise OptionError(
            "option workersReturn is for dtm.start(main): the workers of a run inside a program do "
            "not run it"
        )
    manager = chosen.communicationManager
    if isinstance(manager, str) and manager not in MANAGERS:
        raise OptionError(
            f"option communicationManager is {manager!r}, but a run inside a program has the "
            f"workers that it starts on this machine; {_HOW}"
        )
    return chosen


def begin(given: dict[str, Any]) -> InsideRun:
    """Begin a run with these options, or return the one that the command has begun.

    Raises:
        RunStateError: a run is under way, or this is not the main thread.
        OptionError: the options make no sense.
        InitializerError: the initializer has failed here.
        CommunicationError: the workers cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RunStateError("a run must be begun in the main thread of the program")
    run = runtime.current
    if isinstance(run, InsideRun) and run.given and not run.over:
        return run
    if run is not None and not run.implicit and not run.over:
        raise RunStateError(
            "a run is under way already, and its workers serve what is called here too; end it "
            "(dtm.stop(), or the end of its block) before you begin another"
        )
    chosen = options_of(given)
    with interrupts_blocked():
        comm = _joined(chosen)
        try:
            begun = InsideRun(comm, chosen)
        except BaseException:
            comm.close(0.0)
            imports.stand_together()
            raise
        runtime.current = begun
        begun.begin()
    try:
        begun.prepare()
    except BaseException:
        begun.finish()
        raise
    return begun


def stop() -> None:
    """End the run that ``start()`` has begun; see :func:`dtm.stop`."""
    run = runtime.current
    if run is None or run.implicit or run.over:
        return
    if not isinstance(run, InsideRun):
        raise RunStateError("a run of dtm.start(main) ends when main returns")
    if not run.runner.thread.main or run.comm.rank or run.runner.context().depth:
        raise RunStateError("dtm.stop must be called in the main thread of the program, by no task")
    if not run.given:
        run.finish()


def _joined(chosen: Options) -> CommunicationManager:
    """Start the workers that the options ask for, and return the manager."""
    from dtm.comm.serial import SingleManager
    from dtm.launch.cores import default_workers

    if is_invited() or "DTM_INVITATION" in os.environ:
        return SingleManager()
    manager = chosen.communicationManager
    if manager not in MANAGERS:
        return join(chosen)
    if manager is None:
        _refuse_ranks()
    workers = 1 if manager == "serial" else chosen.workers or default_workers(os.environ)
    if workers > 1 and (not sys.executable or getattr(sys, "frozen", False)):
        sys.stderr.write(
            "dtm: there is no Python interpreter to start, Python is embedded in another program, "
            "so it runs serially, in this process\n"
        )
        workers = 1
    if workers == 1:
        return SingleManager()
    imports.stand_apart()  # for what the orders say
    try:
        return start_servers(workers, _orders(chosen))
    except BaseException:
        imports.stand_together()
        raise


def _refuse_ranks() -> None:
    """Start no workers in each of many processes that an MPI launcher has started."""
    from dtm.comm.mpi.environment import is_inherited, launched_by_mpi, world_size

    if launched_by_mpi(os.environ) and not is_inherited(os.environ) and world_size(os.environ) != 1:
        raise CommunicationError(
            "this process is one of many that an MPI launcher has started, and each would start "
            f"workers of its own; {_HOW}, and setOptions(communicationManager='local') has each "
            "start its own after all"
        )


# The other workers.


def _orders(chosen: Options) -> bytes:
    return dumps_flat((vars(chosen), list(sys.argv)))


def obey(comm: CommunicationManager, orders: bytes) -> None:
    """(A process that was started to serve) work until the run is over."""
    given, sys.argv = pickle.loads(orders)
    follow(comm, Options(**given))


def follow(comm: CommunicationManager, chosen: Options) -> None:
    """Work until the run is over, without running the program."""
    imports.stand_apart()
    run = runtime.current = InsideRun(comm, chosen, given=True)
    run.follow()


def lead(
    comm: CommunicationManager, chosen: Options, program: Callable[..., Any], /, *args: Any
) -> Any:
    """(The root) run a program inside of a run that lasts as long as the program."""
    run = runtime.current = InsideRun(comm, chosen, given=True)
    run.begin()
    try:
        return call_with_room(program, *args)
    finally:
        run.finish()
