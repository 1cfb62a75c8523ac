"""The thread that runs users' callbacks.

``main`` may wait for what a callback does, outside of dtm too, and a callback for calls of its own.
So callbacks run in a thread that does nothing else, one after the other; it is started
when the first is due.  For dtm it is a thread of the user's.

Shared attributes: ``_thread`` is set under the worker's lock; the queue has a lock of its own.

Threads: any, but for ``_run``.

Rejected: to run them in the main thread, between items.  A callback that waits there gives
way to ``main``, which may then block outside of dtm until the callback has ended.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

LOOK_SECONDS = 0.5


def called(callback: Callable[..., object], *args: Any) -> None:
    """Call a callback of the user's: there is nobody to raise to, so that goes to stderr."""
    try:
        callback(*args)
    except (Exception, SystemExit):  # noqa: BLE001 - users' code
        traceback.print_exc()


class Callbacks:
    """What is to be called, and the thread that does it.

    Args:
        lock: the worker's lock.
    """

    SHARED_READ_FREELY: ClassVar = {"_thread": "_lock"}

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._due: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over = False

    def call_later(self, callback: Callable[[], None]) -> None:
        """Have a function called soon; what it raises goes to stderr."""
        self._due.put(callback)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="dtm-callbacks", daemon=True
                    )
                    self._thread.start()

    @property
    def is_calling(self) -> bool:
        """Whether the calling thread is the one for callbacks."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """The run is over: let the thread end."""
        self._over = True

    def _run(self) -> None:
        while not self._over:
            try:
                callback = self._due.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            try:
                called(callback)
            except BaseException:  # noqa: BLE001 - nothing ends this thread
                traceback.print_exc()
