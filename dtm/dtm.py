"""What users call.  Each function makes a call, submits it and waits, no more.

The names are those of DEAP's dtm; what is new follows PEP 8.  Keyword arguments
of ``map``, ``apply`` and ``repeat`` all go to the user's function, so the options of
one call have a door of their own: ``dtm.options(chunksize=10).map(f, xs)``.

Every function may be called from ``main``, from any task at any depth and from
threads of the user's.  Outside of a run it works serially.

Rejected: making items when asked for (``map`` returning an iterator): ``map`` of the
original returned a list, and programs index it.  ``imap`` is lazy.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex

from dtm.future import AsyncResult
from dtm.lazy import MOST_ITEMS, LazyResults, Window
from dtm.options import unknown
from dtm.run import runtime
from dtm.task import Call, Same

if TYPE_CHECKING:
    import random as _random

    from dtm.run.runner import Context, Runner

Function = Callable[..., Any]

__all__ = [
    "AsyncResult", "apply", "apply_async", "filter", "getWorkerId", "imap", "imap_unordered",
    "map", "map_async", "options", "random", "repeat", "rng", "setOptions", "start", "testAll",
    "testAllAsync", "testAny", "waitAll", "waitAny", "waitForAll",
]  # fmt: skip


class Door:
    """The functions of dtm with the options of one call; made by :func:`options`."""

    __slots__ = ("_callback", "_chunksize", "_error_callback", "_window")

    def __init__(
        self,
        chunksize: int | None = None,
        window: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        for name, value in (("chunksize", chunksize), ("window", window)):
            if value is not None and (not isinstance(value, SupportsIndex) or int(value) < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        for name, function in (("callback", callback), ("error_callback", error_callback)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {function!r}")
        self._chunksize = None if chunksize is None else int(chunksize)
        self._window = None if window is None else int(window)
        self._callback = callback
        self._error_callback = error_callback

    def _call(
        self,
        kind: str,
        function: Function,
        items: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        star: bool,
        batch: tuple[int, int] | None = None,
    ) -> tuple[Runner, Call, Context]:
        """Make a call of the calling task and submit it.

        ``batch`` says of a batch of a lazy map the number of that map in its task and the
        index of the first item.
        """
        if not callable(function):
            raise TypeError(f"dtm.{kind} needs a function, not {function!r}")
        runner = runtime.running().runner
        context = runner.context()
        scheduler = runner.scheduler
        granularity = scheduler.granularity
        profile = granularity.profile(function, context.depth)
        if kwargs:
            function = partial(function, **kwargs)
        path = context.path
        if path is not None:
            path = (*path, _next_number(context) if batch is None else batch[0])
        call = Call(
            function, items, len(items), scheduler.rank, profile, kind, star, context.depth, path,
            self._chunksize or granularity.chunk, batch is not None, context,
            0 if batch is None else batch[1],
        )  # fmt: skip
        if call.size:
            runner.submit(call)
        return runner, call, context

    def _finish(self, runner: Runner, call: Call) -> list[Any]:
        try:
            runner.wait(call)
        except BaseException:
            runner.abandon(call)
            raise
        if call.failure is not None:
            raise call.failure[1]
        return call.values() if call.size else []

    def _later(self, made: tuple[Runner, Call, Context], *, single: bool) -> AsyncResult:
        runner, call, context = made
        result = AsyncResult(runner, call, context, single)
        if context.pending is None:
            context.pending = {}
        context.pending[call] = result
        if self._callback is not None or self._error_callback is not None:
            result.on_end(self._callback, self._error_callback)
        return result

    def map(self, function: Function, /, *iterables: Iterable[Any], **kwargs: Any) -> list[Any]:
        """Return the results of ``function`` on the items; see :func:`dtm.map`."""
        items, star = _items("map", iterables)
        runner, call, _ = self._call("map", function, items, kwargs, star=star)
        return self._finish(runner, call)

    def map_async(
        self, function: Function, /, *iterables: Iterable[Any], **kwargs: Any
    ) -> AsyncResult:
        """Begin a map; see :func:`dtm.map_async`."""
        items, star = _items("map_async", iterables)
        made = self._call("map_async", function, items, kwargs, star=star)
        return self._later(made, single=False)

    def apply(self, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function`` as a task; see :func:`dtm.apply`."""
        runner, call, _ = self._call("apply", function, (args,), kwargs, star=True)
        return self._finish(runner, call)[0]

    def apply_async(self, function: Function, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Begin an apply; see :func:`dtm.apply_async`."""
        made = self._call("apply_async", function, (args,), kwargs, star=True)
        return self._later(made, single=True)

    def repeat(self, function: Function, n: int, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call ``function`` ``n`` times; see :func:`dtm.repeat`."""
        from operator import index

        times = index(n)
        if times < 0:
            raise ValueError(f"dtm.repeat cannot call a function {times} times")
        runner, call, _ = self._call("repeat", function, Same(args, times), kwargs, star=True)
        return self._finish(runner, call)

    def filter(self, function: Function | None, iterable: Iterable[Any]) -> list[Any]:
        """Return the items for which ``function`` is true; see :func:`dtm.filter`."""
        items, _ = _items("filter", (iterable,))
        if function is None:
            return [item for item in items if item]
        runner, call, _ = self._call("filter", function, items, {}, star=False)
        verdicts = self._finish(runner, call)
        return [item for item, verdict in zip(items, verdicts, strict=True) if verdict]

    def imap(self, function: Function, *iterables: Iterable[Any]) -> Iterator[Any]:
        """Iterate over the results in order; see :func:`dtm.imap`."""
        return LazyResults(self._lazy("imap", function, iterables, None), ordered=True)

    def imap_unordered(
        self, function: Function, *iterables: Any, chunksize: int = 1
    ) -> Iterator[Any]:
        """Iterate over the results as they come; see :func:`dtm.imap_unordered`."""
        last = iterables[-1] if len(iterables) > 1 else None
        if isinstance(last, SupportsIndex) and not hasattr(last, "__iter__"):  # arrays have both
            *rest, chunksize = iterables
            iterables = tuple(rest)
        if not isinstance(chunksize, SupportsIndex) or int(chunksize) < 1:
            raise ValueError(f"chunksize must be a whole number of at least 1, not {chunksize!r}")
        most = int(chunksize) if int(chunksize) > 1 else None
        window = self._lazy("imap_unordered", function, iterables, most)
        return LazyResults(window, ordered=False)

    def _lazy(
        self, kind: str, function: Function, iterables: tuple[Any, ...], window: int | None
    ) -> Window:
        if not iterables:
            raise TypeError(f"dtm.{kind} needs at least one iterable")
        star = len(iterables) > 1
        source = builtins.zip(*iterables) if star else iterables[0]
        runner = runtime.running().runner
        batches = 2 * runner.scheduler.size + 2
        most = window or self._window
        if most is not None:
            batches = max(batches, most)
        largest = MOST_ITEMS if most is None else max(1, most // (2 * runner.scheduler.size))

        number = _next_number(runner.context())

        def submit(items: list[Any], first: int) -> Call:
            return self._call(kind, function, items, {}, star=star, batch=(number, first))[1]

        return Window(runner, submit, source, batches, most, largest)


_plain = Door()


def _next_number(context: Context) -> int:
    """Number the calls of a task, which names their items' random streams."""
    context.calls += 1
    return context.calls


def _items(kind: str, iterables: tuple[Iterable[Any], ...]) -> tuple[Sequence[Any], bool]:
    """Return the items as a sequence that nobody else changes, and whether they are tuples."""
    if len(iterables) != 1:
        if not iterables:
            raise TypeError(f"dtm.{kind} needs at least one iterable")
        return list(builtins.zip(*iterables)), True
    iterable = iterables[0]
    if type(iterable) in (range, tuple, Same):
        return iterable, False  # type: ignore[return-value]
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(iterable) is numpy.ndarray:
        array: Any = iterable
        if array.ndim == 1:
            return array.copy(), False
    return list(iter(iterable)), False


def start(main: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run ``main(*args, **kwargs)`` with all the workers, and return what it returns.

    The root runs ``main``; on every other worker ``start`` does not return: its process
    ends, with status 0, when the run does (unless ``setOptions(workersReturn=True)``,
    which makes it return None).  Calls of dtm that are still under way when ``main``
    returns are dropped.

    Raises:
        RunStateError: called twice, or not from the main thread.
        WorkerLostError: a worker died.
        OptionError: the options make no sense.
        CommunicationError: the workers could not be joined.
        Exception: whatever ``main`` raises.
    """
    return runtime.start(main, args, kwargs)


def setOptions(**given: Any) -> None:  # noqa: N802 - the name of the original
    """Set options of the run that ``start`` will begin; see :class:`dtm.options.Options`.

    Raises:
        OptionError: an option is unknown or has an impossible value.
        RunStateError: the run has begun.
    """
    run = runtime.current
    if run is not None and not run.implicit:
        from dtm.errors import RunStateError

        raise RunStateError("dtm.setOptions must be called before dtm.start")
    runtime.options.update(given)


def getWorkerId() -> int:  # noqa: N802 - the name of the original
    """Return the rank of this worker: 0 on the root, and outside of a run."""
    run = runtime.current
    return 0 if run is None else run.comm.rank


def options(**given: Any) -> Door:
    """Return an object with dtm's functions that carry the given options.

    Args:
        chunksize: items that run, and travel, at least so many together.
        window: (``imap`` and ``imap_unordered``) how many items may be under way.
        callback: (asynchronous calls) called with the result, in some thread of dtm.
        error_callback: (asynchronous calls) called with the exception instead.

    Raises:
        OptionError: an option is unknown.
    """
    known = ("chunksize", "window", "callback", "error_callback")
    for name in given:
        if name not in known:
            raise unknown(name, known, "option of a call")
    return Door(**given)


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


def apply(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Return ``function(*args, **kwargs)``, run as a task, perhaps by another worker."""
    return _plain.apply(function, *args, **kwargs)


def apply_async(function: Function, /, *args: Any, **kwargs: Any) -> AsyncResult:
    """Begin an :func:`apply` and return at once; ``get()`` of the result is the value."""
    return _plain.apply_async(function, *args, **kwargs)


def repeat(function: Function, n: int, /, *args: Any, **kwargs: Any) -> list[Any]:
    """Return the results of calling ``function(*args, **kwargs)`` ``n`` times."""
    return _plain.repeat(function, n, *args, **kwargs)


def filter(function: Function | None, iterable: Iterable[Any]) -> list[Any]:
    """Return the items for which ``function`` is true, in order; None asks the items themselves."""
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
