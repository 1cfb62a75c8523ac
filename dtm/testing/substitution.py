"""Replaces locks, clocks and threads of the modules under test by controlled ones.

The names stand in the modules themselves (``threading``, ``perf_counter`` after ``from time import
perf_counter``), so they are exchanged there, module by module, for the time of an exploration.
A module as a whole, ``threading`` say, gives way to an :class:`Overlay`, which knows the
exchanged names and asks the module for all others.

Locks that stand in the globals of a module, or that ``functools.cached_property`` keeps (Python
3.11), are exchanged too: a real lock that is held across a switch would stop everything.

What stays real: what other libraries use.  A program that waits in one of them, in a
``queue.Queue`` say, hangs, which is found and said.

Threads: the one that explores; nothing controlled runs yet.

Rejected: to exchange the attributes of ``threading`` and ``time`` themselves.  Whatever else
runs in this process, pytest and its plugins among it, would get them too.
"""

from __future__ import annotations

import atexit
import os
import queue
import signal
import sys
import threading
import time
from _thread import LockType
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, reduce
from types import ModuleType
from typing import Any

from dtm.testing import primitives

_UNTOUCHED = ("dtm.testing",)
_RLOCK = type(threading.RLock())


class Overlay:
    """A module with some names exchanged; ``names`` maps them to what they stand for here."""

    def __init__(self, module: ModuleType, names: Mapping[str, Any]) -> None:
        vars(self)["_overlaid"] = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_overlaid"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_overlaid"], name, value)


def _exchange() -> dict[int, Any]:
    """Return what is exchanged, by the identity of what it stands for."""
    tables: list[tuple[ModuleType, dict[str, Any]]] = [
        (threading, primitives.THREADING),
        (time, primitives.TIME),
        (os, primitives.OS),
        (signal, primitives.SIGNAL),
        (queue, primitives.QUEUE),
        (sys, primitives.SYS),
    ]
    found: dict[int, Any] = {}
    for module, names in tables:
        found[id(module)] = Overlay(module, names)
        found.update(
            {
                id(getattr(module, name)): value
                for name, value in names.items()
                if hasattr(module, name)
            }
        )
    return found


def _concerned(prefixes: Sequence[str]) -> list[ModuleType]:
    def covers(name: str, prefix: str) -> bool:
        return name == prefix or name.startswith(f"{prefix}.")

    return [
        module
        for name, module in list(sys.modules.items())
        if any(covers(name, prefix) for prefix in prefixes)
        and not any(covers(name, prefix) for prefix in _UNTOUCHED)
    ]


def _replacement(value: Any, exchange: Mapping[int, Any]) -> Any:
    if type(value) is LockType:
        return primitives.Lock()
    if type(value) is _RLOCK:
        return primitives.RLock()
    return exchange.get(id(value))


@contextmanager
def substituted(prefixes: Sequence[str], more: Mapping[str, Any]) -> Iterator[None]:
    """Exchange the names in all modules whose names begin with one of the prefixes.

    Args:
        prefixes: names of modules or packages, which are imported.
        more: further attributes to exchange, as ``"module:name"`` or ``"module:Class.name"``.
    """
    exchange = _exchange()
    undo: list[tuple[Any, str, Any]] = []

    def put(place: Any, name: str, value: Any) -> None:
        undo.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    try:
        for module in _concerned(prefixes):
            for name, value in list(vars(module).items()):
                other = _replacement(value, exchange)
                if other is not None:
                    put(module, name, other)
                elif isinstance(value, type) and value.__module__ == module.__name__:
                    for each in vars(value).values():
                        if isinstance(each, cached_property) and hasattr(each, "lock"):
                            put(each, "lock", primitives.RLock())
        for path, value in more.items():
            module_name, _, names = path.partition(":")
            *way, name = names.split(".")
            put(reduce(getattr, way, sys.modules[module_name]), name, value)
        put(atexit, "_run_exitfuncs", primitives.nothing)
        yield
    finally:
        for place, name, value in reversed(undo):
            setattr(place, name, value)
