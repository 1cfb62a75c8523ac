"""The functions of dtm with the options of one call: make a call, submit it, wait; no more.

``dtm.map`` and its kin are those of a :class:`Door` without options, ``dtm.options(...)`` returns
one with, and what makes dtm fit elsewhere (:mod:`dtm.integrations`) stands on doors too.

Threads: any that may call dtm.

Rejected: reserved keywords for options.  Keyword arguments of ``map``, ``apply`` and ``repeat`` all
go to the user's function.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

from dtm.future import AsyncResult, raised
from dtm.lazy import MOST_ITEMS, LazyResults, Window
from dtm.progress import shown
from dtm.run import runtime
from dtm.task import Body, Call, Same

if TYPE_CHECKING:
    from dtm.run.context import Context
    from dtm.run.runner import Runner
    from dtm.tolerance import Tolerance

Function = Callable[..., Any]

PROGRESS = os.environ.get("DTM_PROGRESS", "0") not in ("", "0")
"""Whether calls that ``main`` makes and waits for show how far they are, unless they say."""


class Made(NamedTuple):
    """A call, the runner that it was made for, and the task that made it."""

    runner: Runner
    call: Call
    context: Context


class Door:
    """The functions of dtm with the options of one call; made by :func:`dtm.options`.

    Args:
        chunksize, window, callback, error_callback, progress: see :func:`dtm.options`.
        guard: puts something around the function; None leaves it as it is.
        tolerance: what becomes of items that have failed; None raises the first.
    """

    __slots__ = (
        "_callback", "_chunksize", "_error_callback", "_guard", "_plain", "_progress",
        "_tolerance", "_window",
    )  # fmt: skip

    def __init__(
        self,
        chunksize: int | None = None,
        window: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        progress: bool | None = None,
        guard: Callable[[Function], Body] | None = None,
        tolerance: Tolerance | None = None,
    ) -> None:
        self._chunksize = whole("chunksize", chunksize)
        self._window = whole("window", window)
        for name, function in (("callback", callback), ("error_callback", error_callback)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be callable, not {function!r}")
        self._callback = callback
        self._error_callback = error_callback
        self._progress = progress
        self._guard = guard
        self._tolerance = tolerance
        hooks = (callback, error_callback, guard, tolerance)
        self._plain = not (progress or PROGRESS or any(hook is not None for hook in hooks))

    def make(
        self,
        kind: str,
        function: Function,
        items: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        star: bool,
        batch: tuple[int, int] | None = None,
        task: Context | None = None,
    ) -> Made:
        """Make a call of the calling task, or of another, without submitting it.

        ``batch`` says of a batch of a lazy map the number of that map in its task and the
        index of the first item.
        """
        return Made(*self._make(kind, function, items, kwargs, star, batch, task))

    def _make(
        self,
        kind: str,
        function: Function,
        items: Sequence[Any],
        kwargs: dict[str, Any],
        star: bool,
        batch: tuple[int, int] | None,
        task: Context | None = None,
    ) -> tuple[Runner, Call, Context]:
        if not callable(function):
            raise TypeError(f"dtm.{kind} needs a function, not {function!r}")
        runner = runtime.running().runner
        context = task or runner.context()
        scheduler = runner.scheduler
        granularity = scheduler.granularity
        profile = granularity.profile(function, context.depth)
        if kwargs:
            function = partial(function, **kwargs)
        body = function if self._guard is None else self._guard(function)
        path = context.path
        if path is not None:
            path = (*path, number_of_call(context) if batch is None else batch[0])
        call = Call(
            body, items, len(items), scheduler.rank, profile, kind, star, context.depth, path,
            self._chunksize or granularity.chunk, batch is not None, context,
            0 if batch is None else batch[1],
        )  # fmt: skip
        return runner, call, context

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
        """Make a call of the calling task and submit it."""
        made = self._make(kind, function, items, kwargs, star, batch)
        if made[1].size:
            waits = batch is None and not kind.endswith("_async")
            made[0].submit(made[1], waits=waits)
        return made

    def _finish(self, made: tuple[Runner, Call, Context]) -> list[Any]:
        """Wait for a call and return its values."""
        runner, call, context = made
        if self._plain:
            try:
                runner.wait(call)
            except BaseException:  # Ctrl-C too: nobody will ask for the rest
                runner.abandon(call)
                raise
            if call.failure is not None:
                raise raised(call)
            return call.values()
        try:
            if self._progress or (PROGRESS and self._progress is None and not context.depth):
                with shown(call):
                    runner.wait(call)
            else:
                runner.wait(call)
        except BaseException:  # Ctrl-C too: nobody will ask for the rest
            runner.abandon(call)
            raise
        if self._callback is None and self._error_callback is None:
            return self._values(runner, call)
        return self._told(runner, call)

    def _values(self, runner: Runner, call: Call) -> list[Any]:
        if self._tolerance is not None:
            return self._tolerance.values(runner, call)
        if call.failure is not None:
            raise raised(call)
        return call.values() if call.size else []

    def _told(self, runner: Runner, call: Call) -> list[Any]:
        try:
            values = self._values(runner, call)
        except Exception as error:  # whatever the function raised
            if self._error_callback is not None:
                self._error_callback(error)
            raise
        if self._callback is not None:
            single = call.kind.startswith("apply")
            self._callback(values[0] if single else values)
        return values

    def _later(self, made: tuple[Runner, Call, Context], *, single: bool) -> AsyncResult:
        runner, call, context = made
        tolerance = self._tolerance
        settle = None if tolerance is None else partial(tolerance.values, runner)
        result = AsyncResult(runner, call, context, single, settle)
        if context.pending is None:
            context.pending = {}
        context.pending[call] = result
        if self._callback is not None or self._error_callback is not None:
            result.on_end(self._callback, self._error_callback)
        return result

    def map(self, function: Function, /, *iterables: Iterable[Any], **kwargs: Any) -> list[Any]:
        """Return the results of ``function`` on the items; see :func:`dtm.map`."""
        items, star = items_of("map", iterables)
        return self._finish(self._call("map", function, items, kwargs, star=star))

    def map_async(
        self, function: Function, /, *iterables: Iterable[Any], **kwargs: Any
    ) -> AsyncResult:
        """Begin a map; see :func:`dtm.map_async`."""
        items, star = items_of("map_async", iterables)
        made = self._call("map_async", function, items, kwargs, star=star)
        return self._later(made, single=False)

    def starmap(
        self, function: Function, iterable: Iterable[Iterable[Any]], /, **kwargs: Any
    ) -> list[Any]:
        """Return the results of ``function(*arguments)``; see :func:`dtm.starmap`."""
        items = arguments_of("starmap", iterable)
        return self._finish(self._call("starmap", function, items, kwargs, star=True))

    def starmap_async(
        self, function: Function, iterable: Iterable[Iterable[Any]], /, **kwargs: Any
    ) -> AsyncResult:
        """Begin a starmap; see :func:`dtm.starmap_async`."""
        items = arguments_of("starmap_async", iterable)
        made = self._call("starmap_async", function, items, kwargs, star=True)
        return self._later(made, single=False)

    def apply(self, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function`` as a task; see :func:`dtm.apply`."""
        return self._finish(self._call("apply", function, (args,), kwargs, star=True))[0]

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
        return self._finish(self._call("repeat", function, Same(args, times), kwargs, star=True))

    def filter(self, function: Function | None, iterable: Iterable[Any]) -> Any:
        """Return the items for which ``function`` is true; see :func:`dtm.filter`."""
        items, _ = items_of("filter", (iterable,))
        if function is None:
            verdicts: Sequence[Any] = items
        else:
            verdicts = self._finish(self._call("filter", function, items, {}, star=False))
        kept = [index for index, verdict in enumerate(verdicts) if verdict]
        if is_array(iterable):
            array: Any = iterable
            return array[kept] if kept else array[:0]
        return [items[index] for index in kept]

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
        most = whole("chunksize", chunksize) or 1
        window = self._lazy("imap_unordered", function, iterables, most if most > 1 else None)
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

        number = number_of_call(runner.context())

        def submit(items: list[Any], first: int) -> Call:
            return self._call(kind, function, items, {}, star=star, batch=(number, first))[1]

        return Window(runner, submit, source, batches, most, largest, partial(self._values, runner))


def whole(name: str, value: Any) -> int | None:
    """Return a number of things, of whichever kind of integer, or None for none given.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    if value is None:
        return None
    if not isinstance(value, SupportsIndex) or int(value) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)


def number_of_call(context: Context) -> int:
    """Number the calls of a task, which names their items' random streams."""
    context.calls += 1
    return context.calls


def is_array(iterable: Any) -> bool:
    """Tell whether it is an array of NumPy's, without importing NumPy for it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(iterable) is numpy.ndarray


def items_of(kind: str, iterables: tuple[Iterable[Any], ...]) -> tuple[Sequence[Any], bool]:
    """Return the items as a sequence that nobody else changes, and whether they are tuples."""
    if len(iterables) != 1:
        if not iterables:
            raise TypeError(f"dtm.{kind} needs at least one iterable")
        return list(builtins.zip(*iterables)), True
    iterable: Any = iterables[0]
    if type(iterable) in (range, tuple, Same):
        return iterable, False
    if is_array(iterable) and iterable.ndim == 1:
        return iterable.copy(), False
    return list(iter(iterable)), False


def arguments_of(kind: str, iterable: Iterable[Iterable[Any]]) -> list[Any]:
    """Return the items of a starmap: tuples of arguments."""
    items: list[Any] = list(iterable)
    for index, item in enumerate(items):
        if type(item) is not tuple:
            try:
                items[index] = tuple(item)
            except TypeError as error:
                raise TypeError(
                    f"dtm.{kind} needs tuples of arguments, and item {index} is {item!r}"
                ) from error
    return items
