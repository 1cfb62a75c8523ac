"""``dtm.local``: what a worker keeps for itself, made when it is first needed.

A model, a connection to a database, the handle of a GPU: each worker has its own, none of them
travels, and making one takes too long to do it for each item.  It is a space of attributes,
empty when a run begins and again when it has ended; all threads and tasks of a worker see the
same.  Outside of a run it is a space of the process.

A forked child has what its parent had then, as of all memory, and from then on its own.  (It may
use a model that it finds there; a connection is the parent's, as after any ``fork``.)

Invariant: of what ``get`` makes there is one in a worker, also when several threads want it at
once.  While it is made its thread is no task, as in an initializer (:mod:`dtm.run.initializing`):
another task could run in a wait, and find it half made.

Threads: any; one lock, held while something is made.

Rejected: a space for each thread, as ``threading.local``.  Tasks of one worker run in one thread,
and a thread pool inside a task wants the worker's GPU, not another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import RLock
from typing import Any, TypeVar

from dtm.errors import RunStateError
from dtm.run.initializing import no_task

Made = TypeVar("Made")

_MISSING: Any = object()


class Local:
    """A space of attributes of this worker; see ``dtm.local``."""

    __slots__ = ("__dict__", "_lock", "_making", "_runner")

    def __init__(self) -> None:
        for name, value in (("_lock", RLock()), ("_making", []), ("_runner", None)):
            object.__setattr__(self, name, value)

    def get(self, name: str, make: Callable[..., Made], /, *args: Any, **kwargs: Any) -> Made:
        """Return the attribute ``name``; if this worker has none, make it first.

        Args:
            name: of the attribute.
            make: called once in this worker.  It cannot call dtm.
            *args: what it is called with.
            **kwargs: likewise.

        Raises:
            TypeError: ``make`` cannot be called, or the name is no text.
            AttributeError: the name is one that this object needs itself.
            RunStateError: ``make`` asks for what it is to make, or calls dtm.
            Exception: what ``make`` raises; then the next who asks tries again.
        """
        found: Made = vars(self).get(name, _MISSING)
        if found is not _MISSING:
            return found
        if not isinstance(name, str):
            raise TypeError(f"dtm.local.get needs the name of an attribute, not {name!r}")
        if not callable(make):
            raise TypeError(f"dtm.local.get({name!r}, ...) needs a function, not {make!r}")
        _check(name)
        with self._lock:
            found = vars(self).get(name, _MISSING)
            if found is not _MISSING:
                return found
            if name in self._making:
                raise RunStateError(f"dtm.local.get({name!r}, ...) is called by what is to make it")
            runner = self._runner
            self._making.append(name)
            try:
                what = f"what makes dtm.local.{name}"
                with nullcontext() if runner is None else no_task(runner, what):
                    made = make(*args, **kwargs)
            finally:
                self._making.pop()
            vars(self)[name] = made
            return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        where = "here" if self._runner is None else f"on {self._runner.world.where}"
        raise AttributeError(
            f"dtm.local has no {name!r} {where}: each worker has its own. Make it where it is "
            f"needed by dtm.local.get({name!r}, make), or set it in an initializer "
            "(dtm.setOptions(initializer=...))"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        _check(name)
        vars(self)[name] = value

    def __delattr__(self, name: str) -> None:
        _check(name)
        try:
            del vars(self)[name]
        except KeyError:
            raise AttributeError(f"dtm.local has no {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _here, ()

    def __repr__(self) -> str:
        return f"<dtm.local: {', '.join(vars(self)) or 'empty'}>"


def _check(name: str) -> None:
    if name in ("get", *Local.__slots__):
        raise AttributeError(f"dtm.local needs the name {name!r} itself: take another")


def _here() -> Local:
    """Return the space of this worker, for any that arrives."""
    return local


def renew(runner: Any = None) -> None:
    """Empty the space of this process, for a run that begins, or at the end of one."""
    vars(local).clear()
    object.__setattr__(local, "_runner", runner)


local = Local()
"""The space of this process."""
