"""An item that takes longer than it may is failed, without a signal.

A watching thread knows when the next limit is over.  It then has the main thread, which runs
the items, look at its own stack between two instructions of Python
(``Py_AddPendingCall``).  If what runs there is the code of the item, and not dtm's on its behalf,
the main thread has :class:`dtm.errors.ItemTimeoutError` raised in itself at that very place
(``PyThreadState_SetAsyncExc``); else the watching thread asks again a little later.

Invariants: the exception never falls into code of dtm, which may hold a lock or have sent half
of a message, nor into another item.  For the thread that it concerns decides itself, and the
interpreter raises at the next instruction at which it looks for such requests: at once up to
Python 3.12, later within the item, on entering a function or on returning to ``limited``, which
waits for it.
An item whose time is up fails, even if it returned after all or caught the exception.

What it cannot do: reach into C code.  A ``sleep`` or a long call of a numeric library is failed
when it returns.  An item that waits for calls of its own is failed when it goes on.

Threads: ``limited`` belongs to the thread that runs the item; in another than the main thread
an item is failed only when it returns.

Rejected: ``signal.setitimer``, which programs use themselves; raising from the watching thread,
which cannot know where the other stands by the time that it is heard.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import starmap
from time import perf_counter
from types import FrameType
from typing import Any

from dtm.errors import ItemTimeoutError

AGAIN_SECONDS = 5e-3
CAUGHT_SECONDS = 1.0
IDLE_SECONDS = 60.0

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Limit:
    """The time of one item.

    Attributes:
        seconds: how long it may take.
        deadline: when that is over.
        frame: the innermost frame of dtm below the item.
        told: when the exception was last raised in it.
    """

    __slots__ = ("deadline", "frame", "seconds", "told")

    def __init__(self, seconds: float, frame: FrameType) -> None:
        self.seconds = seconds
        self.deadline = perf_counter() + seconds
        self.frame = frame
        self.told = float("-inf")

    def due(self) -> float:
        """Return when the item is to be told next."""
        return max(self.deadline, self.told + CAUGHT_SECONDS)


class Watch:
    """The limits of the items that run in the main thread, and the thread that watches them."""

    def __init__(self) -> None:
        self._limits: list[Limit] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next = float("inf")
        self._asked = False
        self._raised: float | None = None
        # From when it is decided to raise until the decision returns to the interpreter no
        # instruction of Python runs, or the exception would fall into this class: so all but
        # the decision is C.
        decisions = iter(self._decide, None)
        ask = partial(next, starmap(_set_exception(), decisions))
        self._ask = ctypes.CFUNCTYPE(ctypes.c_int)(ask)

    def add(self, limit: Limit) -> None:
        """Watch a limit."""
        self._limits.append(limit)
        if limit.deadline < self._next:
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._watch, name="dtm-time-limits", daemon=True
                    )
                    self._thread.start()
                self._next = limit.deadline
                self._changed.notify()

    def remove(self, limit: Limit) -> None:
        """Watch a limit no longer."""
        if limit in self._limits:
            self._limits.remove(limit)
        if self._raised is not None:
            self._raised = None
            self._asked = False

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = perf_counter()
                self._next = min((limit.due() for limit in self._limits), default=float("inf"))
                left = self._next - now
                if left > 0:
                    self._changed.wait(min(left, IDLE_SECONDS))
                    continue
            if self._may_ask(now):
                self._asked, self._raised = True, None
                ctypes.pythonapi.Py_AddPendingCall(self._ask, None)
            with self._changed:
                self._changed.wait(AGAIN_SECONDS)

    def _may_ask(self, now: float) -> bool:
        """Whether no question is on its way, and no exception, which would fall into the next."""
        if not self._asked:
            return True
        return self._raised is not None and now - self._raised >= CAUGHT_SECONDS

    def _decide(self) -> tuple[int, type[BaseException]]:
        """Return the thread to raise in, 0 for none, and what to raise; in the main thread."""
        now = perf_counter()
        over = {id(limit.frame): limit for limit in self._limits if limit.due() <= now}
        frame: FrameType | None = sys._getframe().f_back  # noqa: SLF001 - the stack is the matter
        inside = False
        while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
            inside = True
            frame = frame.f_back
        limit = over.get(id(frame)) if inside else None
        if limit is None:
            self._asked = False
            return 0, ItemTimeoutError
        limit.told = self._raised = now
        return threading.get_ident(), ItemTimeoutError


def _set_exception() -> Callable[[int, type[BaseException]], int]:
    """Return PyThreadState_SetAsyncExc, which is given a thread, and returns 0 whatever it did."""
    function = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
    function.argtypes = (ctypes.c_ulong, ctypes.py_object)
    function.restype = (0).__mul__
    return function


_watch = Watch()


def limited(seconds: float, function: Callable[..., Any], /, *args: Any) -> Any:
    """Call a function that may take so many seconds.

    Raises:
        ItemTimeoutError: it took longer.
        Exception: what the function raises in time.
    """
    limit = Limit(seconds, sys._getframe())  # noqa: SLF001 - to be found on the stack
    result = failure = None
    if threading.current_thread() is threading.main_thread():
        _watch.add(limit)
    try:
        try:
            result = function(*args)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failure = error
        _watch.remove(limit)
        for _ in range(2):  # an exception that is on its way arrives here at the latest
            pass
    except ItemTimeoutError:
        _watch.remove(limit)
    try:
        return _judged(limit, result, failure)
    finally:
        del limit.frame, failure  # circles


def _judged(limit: Limit, result: Any, failure: BaseException | None) -> Any:
    over = perf_counter() >= limit.deadline
    if failure is not None and not (over and isinstance(failure, Exception)):
        raise failure
    if not over:
        return result
    text = f"the item took longer than {limit.seconds:g} seconds"
    if isinstance(failure, ItemTimeoutError) and not failure.args:
        failure.args = (text,)
        raise failure
    raise ItemTimeoutError(text) from failure
