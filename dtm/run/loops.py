"""The event loop of asyncio that runs in the main thread: each task has its own.

asyncio notes for a thread which loop runs in it, and refuses to run another.  A task that waits for
calls within a coroutine leaves that note behind for whatever runs meanwhile, on top of it or on
another stack; so the note is taken away there, and put back before the task goes on.

Threads: each its own note.

Rejected: to import asyncio.  It costs a worker 30 ms of its start, and few programs use it.
"""

from __future__ import annotations

import sys
from typing import Any


def take_running_loop() -> Any:
    """Detach the event loop that runs in this thread, and return it; None if none does."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return None
    loop = events._get_running_loop()  # noqa: SLF001 - what other loops than asyncio's use
    if loop is not None:
        events._set_running_loop(None)  # noqa: SLF001
    return loop


def put_running_loop(loop: Any) -> None:
    """Say that the event loop which was taken away runs again."""
    events = sys.modules.get("asyncio.events")
    if events is not None:
        events._set_running_loop(loop)  # noqa: SLF001
