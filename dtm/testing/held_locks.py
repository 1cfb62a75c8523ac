"""A check, at each access of what threads share, that the thread holds the lock that it is under.

A class says so itself::

    class Worker:
        SHARED = {"_outbox": "lock", "ended": "lock"}
        SHARED_READ_FREELY = {"resting": "lock"}

An attribute in ``SHARED`` is read and written only by a thread that holds ``self.lock``; one in
``SHARED_READ_FREELY`` may be read without.  The lock may be further away, ``"runner.lock"``.  To
change what an attribute holds, a deque say, is to read the attribute.  The constructor is exempt,
for nobody else knows the object yet.

The tables cost nothing by themselves.  :func:`locks_checked` puts a descriptor in the place of each
attribute for a while; explorations always do (:mod:`dtm.testing.interleaving`).

Who holds a lock is known of a reentrant one and of those of an exploration.  Of another real lock
only whether anybody holds it is known, and that must do.

Threads: any.

Rejected: a proxy around each shared object.  It checks that a lock is held when the object is
used, which may be long after it was taken out of the attribute, and ``is`` no longer holds of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import Any

from dtm.errors import InvariantError

_MISSING = object()


def _fail(what: str) -> None:
    raise InvariantError(what)


class _Guarded:
    """Stands in a class for an attribute that is under a lock."""

    def __init__(
        self,
        owner: type,
        name: str,
        lock: str,
        report: Callable[[str], None],
        making: set[int],
        *,
        reads: bool,
    ) -> None:
        self._name = name
        self._title = f"{owner.__qualname__}.{name}"
        self._path = lock
        self._lock = attrgetter(lock)
        self._inner: Any = owner.__dict__.get(name)
        self._report = report
        self._making = making
        self._reads = reads

    def _check(self, thing: object, verb: str) -> None:
        if id(thing) not in self._making and not is_held(self._lock(thing)):
            self._report(f"{self._title} is {verb} by a thread that does not hold {self._path}")

    def __get__(self, thing: Any, owner: type | None = None) -> Any:
        if thing is None:
            return self
        if self._reads:
            self._check(thing, "read")
        if hasattr(self._inner, "__set__"):
            return self._inner.__get__(thing, owner)
        value = vars(thing).get(self._name, self._inner if self._inner is not None else _MISSING)
        if value is _MISSING:
            raise AttributeError(self._name)
        return value

    def __set__(self, thing: Any, value: Any) -> None:
        self._check(thing, "written")
        if hasattr(self._inner, "__set__"):
            self._inner.__set__(thing, value)
        else:
            vars(thing)[self._name] = value


def is_held(lock: Any) -> bool:
    """Whether the calling thread holds a lock; of a plain real lock, whether anybody does."""
    for name in ("held", "_is_owned", "locked"):
        ask = getattr(lock, name, None)
        if ask is not None:
            return bool(ask())
    raise TypeError(f"{lock!r} is no lock: it has neither held, _is_owned nor locked")


@contextmanager
def locks_checked(classes: Iterable[type], report: Callable[[str], None] = _fail) -> Iterator[None]:
    """Check each access of the attributes that the classes declare as shared.

    Args:
        classes: those that have a ``SHARED`` or ``SHARED_READ_FREELY``.
        report: what to do where a lock is not held; as a rule raise :class:`InvariantError`.
    """
    making: set[int] = set()
    with ExitStack() as undo:
        for each in classes:
            _guard(each, undo, making, report)
        yield


def _guard(owner: type, undo: ExitStack, making: set[int], report: Callable[[str], None]) -> None:
    construct = owner.__init__  # type: ignore[misc]

    def made(self: object, *args: Any, **kwargs: Any) -> None:
        making.add(id(self))
        try:
            construct(self, *args, **kwargs)
        finally:
            making.discard(id(self))

    _exchange(owner, "__init__", made, undo)
    for table, reads in (("SHARED", True), ("SHARED_READ_FREELY", False)):
        declared: Mapping[str, str] = owner.__dict__.get(table, {})
        for name, lock in declared.items():
            guard = _Guarded(owner, name, lock, report, making, reads=reads)
            _exchange(owner, name, guard, undo)


def _exchange(owner: type, name: str, value: object, undo: ExitStack) -> None:
    if name in owner.__dict__:
        undo.callback(setattr, owner, name, owner.__dict__[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)


def declared_classes(packages: Iterable[str]) -> list[type]:
    """Return the classes in the modules of some packages that declare shared attributes."""
    found = []
    for package in packages:
        for name in modules_of(package):
            module = importlib.import_module(name)
            found += [
                each
                for each in vars(module).values()
                if isinstance(each, type)
                and each.__module__ == name
                and ("SHARED" in each.__dict__ or "SHARED_READ_FREELY" in each.__dict__)
            ]
    return found


def modules_of(package: str) -> list[str]:
    """Return the names of a package and of its modules, or of a module alone."""
    path = getattr(importlib.import_module(package), "__path__", None)
    below = (
        [] if path is None else [each.name for each in pkgutil.iter_modules(path, f"{package}.")]
    )
    return [package, *below]
