"""dtm in coroutines: ``await dtm.asyncio.map(f, xs)``, ``async for`` over results as they come.

The functions run as tasks of dtm, which are blocking functions as ever; what is awaited is their
end.  A coroutine that is cancelled while it waits drops what has not begun of its call.

For an event loop that wants an executor there is ``loop.run_in_executor(dtm.Executor(), f, x)``.

Threads: that of the event loop, which may be any.

Rejected: coroutines as tasks.  A worker would need an event loop of its own, and a blocking call in
one of them would hold up all that share it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from dtm.door import Door, Function, arguments_of, items_of
from dtm.errors import CallCancelledError
from dtm.future import AsyncResult, Waits, end_early, raised
from dtm.integrations.crew import Crew
from dtm.integrations.flight import value_of
from dtm.integrations.lanes import when_over
from dtm.integrations.pump import look_after
from dtm.run import runtime
from dtm.task import Call

__all__ = ["apply", "as_completed", "imap", "map", "result", "starmap"]

_plain = Door()
_crew = Crew("asyncio", None, None, ())


async def map(function: Function, /, *iterables: Iterable[Any], **kwargs: Any) -> list[Any]:  # noqa: A001
    """Return the results of ``function`` on the items in order; see :func:`dtm.map`."""
    items, star = items_of("asyncio.map", iterables)
    return await _values("map", function, items, kwargs, star=star)


async def starmap(
    function: Function, iterable: Iterable[Iterable[Any]], /, **kwargs: Any
) -> list[Any]:
    """Return the results of ``function(*arguments)`` in order; see :func:`dtm.starmap`."""
    items = arguments_of("asyncio.starmap", iterable)
    return await _values("starmap", function, items, kwargs, star=True)


async def apply(function: Function, /, *args: Any, **kwargs: Any) -> Any:
    """Return ``function(*args, **kwargs)``, run as a task."""
    return (await _values("apply", function, (args,), kwargs, star=True))[0]


async def result(call: AsyncResult) -> Any:
    """Return the result of a call that was begun by ``dtm.map_async`` and its kin."""
    over = asyncio.Event()
    tell = _setter(over)
    call.on_end(lambda _: tell(), lambda _: tell())
    await _until(over, call.runner, call.call)
    return call.get()


async def imap(function: Function, *iterables: Iterable[Any]) -> AsyncIterator[Any]:
    """Iterate over the results in the order of the items, a bounded number of which is out."""
    async for value in _lazily("asyncio.imap", function, iterables, ordered=True):
        yield value


async def as_completed(function: Function, *iterables: Iterable[Any]) -> AsyncIterator[Any]:
    """Iterate over the results as they come; otherwise as :func:`imap`."""
    async for value in _lazily("asyncio.as_completed", function, iterables, ordered=False):
        yield value


def _setter(event: asyncio.Event) -> Callable[[], None]:
    """Return what sets an event of the loop of this thread, from whatever thread."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(event.set)

    return tell


async def _values(
    kind: str, function: Function, items: Sequence[Any], kwargs: dict[str, Any], *, star: bool
) -> list[Any]:
    made = _plain.make(kind, function, items, kwargs, star=star)
    call = made.call
    if not call.size:
        return []
    over = asyncio.Event()
    when_over(made, _setter(over))
    made.runner.submit(call)
    await _until(over, made.runner, call)
    if call.failure is not None:
        raise raised(call)
    return call.values()


async def _until(over: asyncio.Event, runner: Waits, call: Call) -> None:
    """Wait for the end of a call, which is dropped if this coroutine is cancelled."""
    look_after(runner, lambda: [call] if call.missing else [])
    try:
        await over.wait()
    except BaseException:
        end_early(runner, call, CallCancelledError(f"{call.name} was cancelled"))
        raise


async def _lazily(
    kind: str, function: Function, iterables: tuple[Iterable[Any], ...], *, ordered: bool
) -> AsyncIterator[Any]:
    if not iterables:
        raise TypeError(f"dtm.{kind} needs at least one iterable")
    star = len(iterables) > 1
    more = asyncio.Event()
    tell = _setter(more)
    source: Iterable[Any] = zip(*iterables) if star else iterables[0]
    flight = _crew.flight(kind, function, source, None, ordered=ordered, star=star, at_batch=tell)
    try:
        while True:
            more.clear()
            if not flight.ready:
                look_after(runtime.running().runner, flight.calls)
                await more.wait()
                continue
            try:
                found = flight.take(0.0)
            except StopIteration:
                return
            yield value_of(found)
    finally:
        flight.drop()
