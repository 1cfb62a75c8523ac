"""Initializers: what is called once in a worker before its first task.

That of a run (``setOptions(initializer=...)``) is called when the worker begins, in its main
thread: on the root before ``main``, on the others before they look for work.  Messages are
answered meanwhile, and a run that ends does not wait for one that hangs.  That of a call
(``dtm.options(initializer=...)``, a pool, an executor) travels with the function and is called
before the first items that a worker runs.  It stands outside of their time: no estimate of what an
item takes contains it, and no ``timeout`` of an item interrupts it.

Invariants: each is called at most once in a process, also when two threads want it at once
(the second waits) and when it fails (the failure is kept, and raised again for whoever wants it).
While it runs, its thread is no task: calls of dtm raise, for to wait for them would let
tasks run that it has not prepared anything for yet.  In a seeded run it draws the same numbers in
each worker, and the items draw theirs as if it had drawn none.  What it sets of
:mod:`contextvars` (the precision of ``decimal``) holds in the tasks that follow.

Threads: any that runs items.

Rejected: to call that of a call again after it has failed.  What it has got hold of until then
(a licence, the memory of a GPU) it would get once more for each item.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, ClassVar, NamedTuple

from greenlet import GreenletExit

from dtm.errors import DtmError, InitializerError, OptionError, RunStateError
from dtm.run.late_globals import late_globals

MOST_KNOWN = 1 << 16
PATH = (-1,)  # of no item


class NoTask:
    """Stands for the task of a thread that prepares its worker: it has no calls."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RunStateError(
            f"{self._what} cannot call functions of dtm, for it prepares its worker for tasks: "
            "make the call in main, or in a task"
        )


@contextmanager
def no_task(runner: Any, what: str) -> Iterator[None]:
    """Let the calling thread be no task, so that it cannot call dtm."""
    thread = runner.thread
    outer, thread.context = thread.context, NoTask(what)
    streams = runner.streams
    saved = None if streams is None else streams.save()
    try:
        if streams is not None:
            streams.enter(PATH)
        yield
    finally:
        thread.context = outer
        if saved is not None:
            streams.restore(saved)


class Failure(NamedTuple):
    """How an initializer failed in this process, and what it raised."""

    text: str
    cause: BaseException


class Initializer:
    """A function that is called once in each process.

    Args:
        function: what is called.
        arguments: with these.
        name: under which each process knows it; the same on all the workers.
        error: the class of what is raised if it fails.
    """

    __slots__ = ("_arguments", "_error", "_function", "_name")

    _lock: ClassVar = RLock()
    _known: ClassVar[OrderedDict[str, Failure | None]] = OrderedDict()  # under _lock to write

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        name: str,
        error: type[Exception] = InitializerError,
    ) -> None:
        self._function = function
        self._arguments = tuple(arguments)
        self._name = name
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        what = {"initializer": self._function, "initargs": self._arguments}  # errors name the keys
        return _made, (what, self._name, self._error)

    def prepare(self, runner: Any) -> None:
        """Call the function unless this process has called it.

        Raises:
            InitializerError: it fails, or has failed here before.
        """
        if self._name not in self._known:
            with self._lock:
                if self._name not in self._known:
                    # Not in the context of the task: what it sets there would be lost.
                    self._note(runner.in_base(self._call, runner))
        failure = self._known.get(self._name)
        if failure is not None:
            raise self._error(failure.text) from failure.cause

    def _note(self, failure: Failure | None) -> None:
        self._known[self._name] = failure
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _call(self, runner: Any) -> Failure | None:
        function: Any = self._function
        called = getattr(function, "__qualname__", None) or type(function).__name__
        try:
            with no_task(runner, f"the initializer {called}"), late_globals.excused():
                function(*self._arguments)
        except BaseException as error:  # a function of users may raise anything
            if runner.interrupted or isinstance(error, GreenletExit):
                raise  # the run is being ended
            text = str(error) if isinstance(error, DtmError) else f"{type(error).__name__}: {error}"
            where = runner.world.where
            return Failure(f"the initializer {called} has failed on {where}: {text}", error)
        return None


def _made(what: dict[str, Any], name: str, error: type[Exception]) -> Initializer:
    return Initializer(what["initializer"], what["initargs"], name, error)


def initializer_of(options: Any) -> Initializer | None:
    """Return the initializer of a run, None if its options have none.

    Raises:
        OptionError: there are arguments for none.
    """
    if options.initializer is None:
        if options.initargs:
            raise OptionError("option initargs is given, and no initializer to call with it")
        return None
    return Initializer(options.initializer, options.initargs, fresh_name())


def fresh_name() -> str:
    """Return a name for an initializer that no other has, on any worker."""
    return os.urandom(8).hex()
