"""What users call.  Each function makes a call, submits it and waits, no more.

The names are those of DEAP's dtm; what is new follows PEP 8.  Keyword arguments
of ``map``, ``apply`` and ``repeat`` all go to the user's function, so the options of
one call have a door of their own (:mod:`dtm.door`): ``dtm.options(chunksize=10).map(f, xs)``.

Every function may be called from ``main``, from any task at any depth and from
threads of the user's.  Outside of a run it works serially.

Rejected: making items when asked for (``map`` returning an iterator): ``map`` of the
original returned a list, and programs index it.  ``imap`` is lazy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dtm.call_options import door
from dtm.door import Door
from dtm.errors import RunStateError
from dtm.future import AsyncResult
from dtm.handle import Handle, here
from dtm.run import runtime
from dtm.run.local import local

if TYPE_CHECKING:
    import random as _random

    from dtm.integrations import asyncio
    from dtm.integrations.executor import Executor as Executor  # noqa: PLC0414
    from dtm.integrations.pool import Pool as Pool  # noqa: PLC0414
    from dtm.run.inside import Block

Function = Callable[..., Any]
_T = TypeVar("_T")

__all__ = [
    "AsyncResult", "Executor", "Handle", "Pool", "apply", "apply_async", "asyncio", "filter",
    "getWorkerId", "imap", "imap_unordered", "is_root", "local", "map", "map_async", "options",
    "random", "repeat", "rng", "run", "setOptions", "share", "size", "starmap", "starmap_async",
    "start", "stop", "testAll",
    "testAllAsync", "testAny", "waitAll", "waitAny", "waitForAll",
]  # fmt: skip


_plain = Door()


def start(main: Callable[..., Any] | None = None, /, *args: Any, **kwargs: Any) -> Any:
    """Run ``main(*args, **kwargs)`` with all the workers, and return what it returns.

    The root runs ``main``; on every other worker ``start`` does not return: its process
    ends, with status 0, when the run does (unless ``setOptions(workersReturn=True)``,
    which makes it return None).  Calls of dtm that are still under way when ``main``
    returns are dropped.

    Without a function the run begins here and goes on, as in the block of :func:`run`, until
    :func:`stop` is called or the process ends; the keyword arguments are options then.

    Raises:
        RunStateError: called twice, or not from the main thread.
        WorkerLostError: a worker died.
        InitializerError: the initializer (``setOptions(initializer=...)``) has failed in a worker.
        OptionError: the options make no sense.
        CommunicationError: the workers could not be joined.
        Exception: whatever ``main`` raises.
    """
    _load_rest()
    if main is not None:
        return runtime.start(main, args, kwargs)
    from dtm.run import inside

    if args:
        raise TypeError("dtm.start() without a function takes options only, by name")
    inside.begin(kwargs)
    return None


def run(**given: Any) -> Block:
    """Return a ``with`` block in which dtm's functions are parallel.

        with dtm.run(workers=4):
            values = dtm.map(function, items)

    In the block this process is the root, and other processes of this machine work for it.  They
    do not run the program: the functions and classes of ``__main__`` that they need go to them by
    value, with the globals that they read, as these are at the time of the call.  So it works in
    an interactive session, a notebook, ``python -c`` and a test, and one block may follow another.

    Ctrl-C ends the call that is waited for, and not the run.  Calls that are under way at the end
    of the block are dropped.

    Args:
        given: options of this run, as for :func:`setOptions`, but for ``workersReturn``;
            ``communicationManager`` may be ``"local"``, ``"serial"`` or a manager.

    Raises (on entering the block):
        RunStateError: a run is under way, or this is not the main thread.
        OptionError: an option is unknown, impossible, or makes no sense here.
        InitializerError: the initializer has failed in this process.
        CommunicationError: the workers cannot be started.

    Raises (in the block):
        WorkerLostError: a worker has died; each later call raises it too.
    """
    from dtm.run.inside import Block, options_of

    options_of(given)
    return Block(given)


def stop() -> None:
    """End the run that ``start()`` without a function has begun; nothing if there is none.

    Raises:
        RunStateError: called by a task, by another thread, or in a run of ``start(main)``.
    """
    from dtm.run import inside

    inside.stop()


def setOptions(**given: Any) -> None:  # noqa: N802 - the name of the original
    """Set options of the run that ``start`` will begin; see :class:`dtm.options.Options`.

    Raises:
        OptionError: an option is unknown or has an impossible value.
        RunStateError: the run has begun.
    """
    run = runtime.current
    if run is not None and not run.implicit:
        if run.given:
            raise RunStateError(
                "dtm run --inside has begun the run before the program: give options on its "
                "command line, dtm run --help tells which there are"
            )
        raise RunStateError("dtm.setOptions must be called before a run begins")
    runtime.options.update(given)


def getWorkerId() -> int:  # noqa: N802 - the name of the original
    """Return the rank of this worker: 0 on the root, and outside of a run."""
    run = runtime.current
    return 0 if run is None else run.comm.rank


def size() -> int:
    """Return how many workers the run has; 1 outside of a run."""
    run = runtime.current
    return 1 if run is None else run.comm.size


def is_root() -> bool:
    """Return whether this worker is the root, which runs ``main``; True outside of a run."""
    return getWorkerId() == 0


def share(obj: _T, /) -> Handle[_T]:
    """Return a handle of an object: a few bytes wherever it goes, the object where it is looked at.

    ``handle.value`` is the object, in any task of any worker.  It goes once to each worker that
    looks, on one machine by memory that they share, and large arrays in it are read-only there.  Do
    not change the object after this call: who has it already would not see that.  It is freed when
    no handle of it is left, in no variable, task or result of any worker.

    Raises:
        SerializationError: the object cannot be pickled.
    """
    handle = Handle(obj)
    if here.table is not None:
        here.table.adopt(handle)
    return handle


def options(**given: Any) -> Door:
    """Return an object with dtm's functions that carry the given options.

    Args:
        chunksize: items that run, and travel, at least so many together.
        window: (``imap`` and ``imap_unordered``) how many items may be under way.
        callback: called with the result; of an asynchronous call, in some thread of dtm.
        error_callback: called with the exception instead.
        timeout: seconds that one item may take; one that takes longer fails with
            :class:`ItemTimeoutError`, in the middle of Python code, or when C code returns.  Of an
            item that waits for calls of its own all counts until it goes on, also the other tasks
            that its worker runs meanwhile.
        on_error: the result of an item that fails, takes too long or has a result that cannot be
            sent; if it is callable, it is called with the exception for the result.
        return_exceptions: whether such an item has its exception for its result.
        initializer: called once in each worker before the first item that it runs of the calls made
            with this object, which stands for a pool as regards that: keep it to have the
            initializer called once for many calls.  If it fails the call raises, whatever
            ``on_error`` says.  It cannot call functions of dtm; ``timeout`` does not limit it.
        initargs: a tuple of its arguments.
        progress: whether a call that is waited for shows how far it is, by tqdm; without it
            ``DTM_PROGRESS=1`` says so for the calls of ``main``.

    Raises:
        OptionError: an option is unknown, impossible, or two contradict each other.
        InitializerError: (of the calls) the initializer has failed in a worker.
    """
    return door(given)


def map(function: Function, /, *iterables: Iterable[Any], **kwargs: Any) -> list[Any]:
    """Return ``[function(item, ...) ...]`` in order, computed by all the workers.

    Args:
        function: called with one item of each iterable.
        iterables: as many as wanted; the shortest decides.
        kwargs: all handed to the function.

    Raises:
        Exception: what the function raised for the smallest index that failed.  Its
            ``__cause__`` is the traceback of the worker, its notes say where it happened.
    """
    return _plain.map(function, *iterables, **kwargs)


def map_async(function: Function, /, *iterables: Iterable[Any], **kwargs: Any) -> AsyncResult:
    """Begin a :func:`map` and return at once; ``get()`` of the result is the list."""
    return _plain.map_async(function, *iterables, **kwargs)


def starmap(function: Function, iterable: Iterable[Iterable[Any]], /, **kwargs: Any) -> list[Any]:
    """Return ``[function(*arguments) for arguments in iterable]``, as :func:`map` does it."""
    return _plain.starmap(function, iterable, **kwargs)


def starmap_async(
    function: Function, iterable: Iterable[Iterable[Any]], /, **kwargs: Any
) -> AsyncResult:
    """Begin a :func:`starmap` and return at once; ``get()`` of the result is the list."""
    return _plain.starmap_async(function, iterable, **kwargs)


def apply(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Return ``function(*args, **kwargs)``, run as a task, perhaps by another worker."""
    return _plain.apply(function, *args, **kwargs)


def apply_async(function: Function, /, *args: Any, **kwargs: Any) -> AsyncResult:
    """Begin an :func:`apply` and return at once; ``get()`` of the result is the value."""
    return _plain.apply_async(function, *args, **kwargs)


def repeat(function: Function, n: int, /, *args: Any, **kwargs: Any) -> list[Any]:
    """Return the results of calling ``function(*args, **kwargs)`` ``n`` times."""
    return _plain.repeat(function, n, *args, **kwargs)


def filter(function: Function | None, iterable: Iterable[Any]) -> Any:
    """Return a list of the items for which ``function`` is true, in order.

    None for a function asks the items themselves.  Of an array of NumPy's, an array is returned.
    """
    return _plain.filter(function, iterable)


def imap(function: Function, *iterables: Iterable[Any]) -> Iterator[Any]:
    """Iterate over the results in order, pulling items only a bounded way ahead.

    Works over endless iterables in constant memory.  What an item, or the iterable
    itself, raises ends the iteration; tasks that are out are dropped then, and when
    the iterator is closed.
    """
    return _plain.imap(function, *iterables)


def imap_unordered(function: Function, *iterables: Any, chunksize: int = 1) -> Iterator[Any]:
    """Iterate over the results in order of completion; otherwise as :func:`imap`.

    Args:
        chunksize: how many items may be under way (the meaning that it had in DEAP's dtm,
            where it could be given as the last positional argument, as it can here);
            1 leaves it to dtm.
    """
    return _plain.imap_unordered(function, *iterables, chunksize=chunksize)


def _pending(results: Sequence[AsyncResult] | None) -> list[AsyncResult]:
    if results is not None:
        given = list(results)
        for each in given:
            if not isinstance(each, AsyncResult):
                raise TypeError(f"a list of AsyncResults is needed, and {each!r} is not one")
        return given
    return list((runtime.running().runner.context().pending or {}).values())


def waitAll(reqList: Sequence[AsyncResult] | None = None) -> None:  # noqa: N802, N803
    """Wait until the given asynchronous calls have ended; without a list, all of this task."""
    for result in _pending(reqList):
        result.wait()
        result.forget()


def waitAny(reqList: Sequence[AsyncResult] | None = None) -> AsyncResult | None:  # noqa: N802, N803
    """Wait until one of the given asynchronous calls has ended, and return it.

    It returns soon after the first has ended: what takes long is left to other workers meanwhile.
    Without a list it names one of the calls of this task whose result nobody has collected (by
    ``get`` or ``waitAll``), first those that it has not named before.
    None if there is nothing to wait for.
    """
    results = _pending(reqList)
    results = [result for result in results if not result.named] or results
    if not results:
        return None
    runtime.running().runner.wait_any([result.call for result in results], promptly=True)
    return _ended(results)


def _ended(results: list[AsyncResult]) -> AsyncResult | None:
    """Name one that has ended, first those that have not been named before."""
    ended = [result for result in results if not result.call.missing]
    found = next((result for result in ended if not result.named), ended[0] if ended else None)
    if found is not None:
        found.named = True
    return found


def testAll(reqList: Sequence[AsyncResult] | None = None) -> bool:  # noqa: N802, N803
    """Return whether the given asynchronous calls (all of this task) have ended; does not wait."""
    results = _pending(reqList)
    _step(results)
    return all(not result.call.missing for result in results)


def testAny(reqList: Sequence[AsyncResult] | None = None) -> AsyncResult | None:  # noqa: N802, N803
    """Return one of the given asynchronous calls (of this task) that has ended, or None."""
    results = _pending(reqList)
    ended = _ended(results)
    if ended is None:
        _step(results)
        ended = _ended(results)
    return ended


def _step(results: list[AsyncResult]) -> None:
    """Make a little progress on behalf of a task that polls."""
    under_way = [result.call for result in results if result.call.missing]
    runner = runtime.running().runner
    if under_way and not runner.ended:
        runner.step(under_way)


waitForAll = waitAll  # noqa: N816 - the older name
testAllAsync = testAll  # noqa: N816 - the older name


def random() -> _random.Random:
    """Return the generator of Python's ``random`` that belongs to the item that runs.

    In a run with ``setOptions(seed=...)`` its numbers depend on the seed and on where the
    item stands in the tree of tasks, and on nothing else; without a seed they differ from
    run to run.  Within an item it is always the same generator, which goes on.
    """
    from random import Random

    found: _random.Random = _generator(
        "random", Random, lambda streams, path: streams.generator(path)
    )
    return found


def rng() -> Any:
    """Return the ``numpy.random.Generator`` that belongs to the item that runs; as :func:`random`.

    Raises:
        ImportError: NumPy is not installed.
    """
    from numpy.random import default_rng

    return _generator("numpy", default_rng, lambda streams, path: streams.numpy_generator(path))


def _generator(kind: str, fresh: Callable[[], Any], made: Callable[..., Any]) -> Any:
    runner = runtime.running().runner
    context = runner.context()
    if context.generators is None or context.generators[0] is not context.path:
        context.generators = (context.path, {})
    known = context.generators[1]
    if kind not in known:
        streams, path = runner.streams, context.path
        known[kind] = fresh() if streams is None or path is None else made(streams, path)
    return known[kind]


def _load_rest() -> None:
    """Load the modules of pools and executors while no task can have spoiled what imports need.

    Not with dtm itself: many a process that imports dtm starts no run.  What takes asyncio comes
    along only if the program has it already, for that one takes ten times as long.
    """
    from dtm.integrations import executor, pool  # noqa: F401

    if "asyncio" in sys.modules:
        from dtm.integrations import asyncio  # noqa: F401


def __getattr__(name: str) -> Any:
    """Load what few programs need when it is first asked for: an import takes its time."""
    if name == "Pool":
        from dtm.integrations import pool

        return pool.Pool
    if name == "Executor":
        from dtm.integrations import executor

        return executor.Executor
    if name == "asyncio":
        from dtm.integrations import asyncio

        return asyncio
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
