"""One run, assembled from its options: the manager, the worker, signals, the end.

``current`` is the only global of dtm that is ever rebound: the run of this
process.

States of a process: IDLE (nothing started) -> RUNNING (in ``start``) -> OVER.  In
IDLE the functions of dtm work too, in a run of one worker made when first needed,
which says on stderr once that nothing is parallel.  Runs that begin and end inside of the program
are those of :mod:`dtm.run.inside`.

How a run ends on the root:

* ``main`` returns: Stop goes down the tree, Stopped comes up, ``start`` returns;
* ``main`` raises: the same, then the exception passes on;
* Ctrl-C, SIGTERM: ``KeyboardInterrupt``, ``SystemExit(143)`` out of ``main``; running tasks
  of other workers are not waited for; a second one ends the process on the spot;
* a worker is lost: ``WorkerLostError`` out of ``main``, likewise; if ``main`` cannot be
  interrupted within ``GRACE_SECONDS`` (deep in C code), the error is printed and the
  process ends.

On the other workers the process ends, with status 0 if all went well, so that the
code after ``start`` runs once.

Threads: ``start`` belongs to the main thread.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

from dtm.comm.base import CommunicationManager
from dtm.comm.child import end_descendants
from dtm.comm.sharing import shared
from dtm.errors import InitializerError, OptionError, RunStateError
from dtm.handle import here
from dtm.options import Options, imported
from dtm.run import local
from dtm.run.initializing import initializer_of
from dtm.run.late_globals import late_globals
from dtm.run.managers import join
from dtm.run.stack_chunks import call_with_room
from dtm.run.stack_dump import StackDump, Watchman
from dtm.run.waiting import MOST_FRAMES
from dtm.run.worker import Worker

SWITCH_SECONDS = 1e-4
STOP_SECONDS = 5.0
CLOSE_SECONDS = 5.0
BROKEN_SECONDS = 0.6
GRACE_SECONDS = 3.0
PARTING_SECONDS = 60.0
LIVE_VIEW = "dtm.trace.live.LiveView"
UNPREPARED_SECONDS = 0.02

options = Options()
current: Run | None = None


class Run:
    """A run, as this process sees it.

    Attributes:
        worker: the worker of this process.
        over: whether it has ended.
        given: whether the command has begun it, for the whole program (:mod:`dtm.run.inside`).
    """

    given = False

    def __init__(self, comm: CommunicationManager, chosen: Options, *, implicit: bool) -> None:
        self.implicit = implicit
        self.over = False
        self.comm = comm
        self.options = chosen
        self._summary: Callable[..., str] | None = None
        self.worker = self._make_worker(
            minimum=chosen.taskGranularity,
            chunk=max(1, chosen.mapChunkSize),
            seed=chosen.seed,
            cache_bytes=chosen.cacheBytes,
            balancer=_balancer(chosen.loadBalancer),
            on_end=self._on_end,
        )
        self.runner = self.worker.runner
        if comm.size > 1:
            here.table = self.worker.handles
        self._leaving = threading.Lock()
        self._depth = sys.getrecursionlimit()
        sys.setrecursionlimit(self._depth + MOST_FRAMES)
        self._signals = 0
        self._fault_comes = False  # by the next SIGINT, which this process sends to itself
        self._began = perf_counter()
        self._handlers: dict[int, Any] = {}
        self._watchman: Watchman | None = None
        self._view: Any = None
        self._interval = sys.getswitchinterval()
        self.runner.adopt()

    def _make_worker(self, **given: Any) -> Worker:
        """Return the worker, one that is watched if the options ask for what it sees."""
        chosen = self.options
        comm = shared(self.comm, chosen.cacheBytes)
        if not (chosen.setTraceMode or chosen.printSummary):
            return Worker(comm, **given)
        from dtm.run.observed import ObservedWorker
        from dtm.run.recording import Recorder

        if chosen.printSummary and comm.rank == 0:
            self._summary = _summary()
        recorder = None
        if chosen.setTraceMode:
            host = comm.hosts[comm.rank]
            recorder = Recorder(chosen.traceDir, comm.rank, comm.size, host)
        return ObservedWorker(comm, recorder=recorder, **given)

    # The root.

    def lead(self, main: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``main`` on the root, and end the run."""
        self.begin()
        try:
            self.prepare()
            if self.comm.size > 1:
                late_globals.remember()
            return call_with_room(main, *args, **kwargs)
        finally:
            self.finish()

    def begin(self) -> None:
        """Begin the run on the root: from here on this thread is where tasks run."""
        self._catch_signals()
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        self.worker.start()
        self._watch_for_stalls()
        self._open_view()
        local.renew(self.runner)
        streams = self.runner.streams
        self.runner.context()
        if streams is not None:
            streams.enter(())

    def prepare(self) -> None:
        """Call the initializer of the run, if there is one."""
        initializer = initializer_of(self.options)
        if initializer is not None:
            initializer.prepare(self.runner)

    def finish(self) -> None:
        """End the run on the root, and put back what ``begin`` has changed in this process."""
        try:
            self._end()
        finally:
            local.renew()
            late_globals.forget()
            sys.setswitchinterval(self._interval)
            sys.setrecursionlimit(self._depth)
            self._give_signals_back()

    def _end(self) -> None:
        duration = perf_counter() - self._began
        if self._watchman is not None:
            self._watchman.stop()
        if self._view is not None:
            self._view.close()
        broken = self.runner.interrupted
        stopped = False
        if broken:
            self.worker.abandon()
        else:
            stopped = self.worker.stop(STOP_SECONDS)
        self.over = True
        counters = self.worker.scheduler.summary()
        self.worker.leave(CLOSE_SECONDS if stopped else BROKEN_SECONDS)
        self.runner.stacks.unwind()
        if self._summary is not None:
            text = self._summary(counters, self.comm.hosts, duration)
            sys.stderr.write(f"{text}\n")

    def _catch_signals(self) -> None:
        for number, default in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            handler = signal.getsignal(number)
            if handler is default:
                self._handlers[int(number)] = handler
                signal.signal(number, self._on_signal)
        self._take_stacks_signal()

    def _take_stacks_signal(self) -> None:
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            self._handlers[int(signal.SIGUSR1)] = signal.SIG_DFL
            signal.signal(signal.SIGUSR1, self._on_stacks_signal)

    def _on_stacks_signal(self, _number: int, _frame: object) -> None:
        """Tell what all tasks do, in a thread: the main thread may hold the worker's lock."""
        report = self._stack_dump().report
        threading.Thread(target=report, name="dtm-stack-dump", daemon=True).start()

    def _stack_dump(self) -> StackDump:
        if self.worker.stack_dump is None:
            self.worker.stack_dump = StackDump(self.worker)
        return self.worker.stack_dump

    def _watch_for_stalls(self) -> None:
        if self.options.stallAfter:
            self._watchman = Watchman(self._stack_dump(), self.worker, self.options.stallAfter)
            self._watchman.start()

    def _open_view(self) -> None:
        """Open the live view, if it is wanted; its module is of a higher layer, so by its name."""
        if self.options.live:
            view = imported("live", LIVE_VIEW)
            self._view = view(self.worker, self.options.live)

    def _give_signals_back(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _on_signal(self, number: int, _frame: object) -> None:
        self.runner.interrupted = True
        if number == signal.SIGINT and self._fault_comes:
            self._fault_comes = False
            if self._signals:  # the run is being ended already, and that is why a worker was lost
                return
            self._signals += 1
            assert self.runner.fault is not None
            raise self.runner.fault
        self._signals += 1
        if self._signals > 1:
            self._abort(128 + number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _on_end(self, reason: BaseException | None) -> None:
        """The run is over, or broken, for this worker.  Any thread."""
        if self.comm.rank:
            self._part(1 if reason else 0)
        elif reason is not None and self.runner.fault is None and not self.over:
            self.runner.fault = reason
            self.runner.interrupted = True
            watch = threading.Timer(GRACE_SECONDS, self._give_up, (reason,))
            watch.daemon = True
            watch.start()
            self.worker.nudge()
            if signal.getsignal(signal.SIGINT) == self._on_signal:
                self._fault_comes = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _give_up(self, reason: BaseException) -> None:
        if not self.over:
            sys.stderr.write(f"{type(reason).__name__}: {reason}\n")
            self._abort(1)

    def _abort(self, status: int) -> None:
        abort = getattr(self.comm, "abort", None)
        if abort is not None:
            abort(status)
        os._exit(status)

    # The other workers.

    def follow(self) -> None:
        """Work until the run is over."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self.worker.start()
        local.renew(self.runner)
        try:
            try:
                self.prepare()
            except InitializerError as error:
                self.worker.unprepared(error)
                while not self.runner.ended:  # the load-balancer thread hears of the end
                    sleep(UNPREPARED_SECONDS)
            call_with_room(self.runner.serve)
        except BaseException as error:  # noqa: BLE001 - the top of a thread: tell the root
            self.worker.broken(error)
            self._part(1)
        if not self.options.workersReturn:
            threading.Event().wait(PARTING_SECONDS)  # the thread in _part ends the process
            os._exit(1)
        with self._leaving:
            self.over = True
        self.runner.stacks.unwind()
        local.renew()

    def fall_silent(self) -> None:
        """(In a child that a task has forked) be no worker any more."""
        self.runner.forked = True
        if self._view is not None:
            self._view.fall_silent()
        if threading.current_thread() is threading.main_thread():
            self._give_signals_back()

    def _part(self, status: int) -> None:
        """End this process, or let ``start`` return."""
        if not self._leaving.acquire(blocking=False):
            return
        self.over = True
        in_a_task = threading.current_thread() is not threading.main_thread()
        self.worker.leave(CLOSE_SECONDS)
        if self.options.workersReturn and not status:
            self._leaving.release()
            return
        if in_a_task:
            end_descendants()
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit would skip them
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        getattr(self.comm, "quit", os._exit)(status)


def _leave_to_the_parent() -> None:
    """In a forked child dtm's functions run serially: the run is the parent's."""
    global current
    run, current = current, None
    here.table = None
    if run is not None:
        run.fall_silent()
        options.initializer, options.initargs = None, ()  # the child has what it has made


os.register_at_fork(after_in_child=_leave_to_the_parent)


def start(main: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Start the run of this process; see :func:`dtm.start`."""
    global current  # noqa: PLW0603 - the one rebindable global
    if threading.current_thread() is not threading.main_thread():
        raise RunStateError("dtm.start must be called from the main thread of the program")
    if not callable(main):
        raise TypeError(f"dtm.start needs a function to run, not {main!r}")
    if current is not None and not current.implicit:
        if current.given and not (current.over or current.runner.context().depth):
            return main(*args, **kwargs)
        what = "is over" if current.over else "is under way"
        raise RunStateError(f"dtm.start was called twice in this process; its run {what}")
    chosen = options.overridden(os.environ)
    comm = join(chosen)
    current = run = Run(comm, chosen, implicit=False)
    if comm.rank == 0:
        if not comm.alters_threads or comm.size == 1:
            return run.lead(main, args, kwargs)
        from dtm.launch.cores import as_in_workers

        with as_in_workers():
            return run.lead(main, args, kwargs)
    return run.follow()


def _summary() -> Callable[..., str]:
    """Load what makes the summary, before a task can spoil what imports need."""
    from dtm.run.summary import summary

    return summary


def _balancer(chosen: Any) -> Any:
    from dtm.core.balancer import Balancer

    if chosen is None:
        return Balancer
    if isinstance(chosen, str):
        return imported("loadBalancer", chosen)
    if not callable(chosen):
        raise OptionError(f"option loadBalancer must be a class or an import path, not {chosen!r}")
    return chosen


def running() -> Run:
    """Return the run that a function of dtm called now belongs to.

    Raises:
        RunStateError: the run of this process is over.
    """
    global current  # noqa: PLW0603 - the one rebindable global
    run = current
    if run is None:
        from dtm.comm.mpi.environment import launched_by_mpi
        from dtm.comm.serial import SingleManager

        chosen = options.overridden(os.environ)
        block = "`dtm run --inside`" if launched_by_mpi(os.environ) else "a block, with dtm.run():"
        sys.stderr.write(
            "dtm: no run has been started, so dtm's functions run serially, in this process; "
            f"dtm.start(main) makes them parallel, and so does {block}\n"
        )
        current = run = Run(SingleManager(), chosen, implicit=True)
        try:
            run.prepare()
        except BaseException:
            current = None
            raise
    if run.over:
        raise RunStateError(
            "the run is over: dtm's functions work inside of dtm.start(main); put the calls into a "
            "function and pass it to dtm.start"
        )
    return run
