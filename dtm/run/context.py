"""A task as it runs, and which one a thread runs.

Threads: a context belongs to the thread that runs the task; of :class:`CallingThread` each thread
sees its own.
"""

from __future__ import annotations

import threading
from typing import Any

from dtm.task import Call


class Context:
    """A task as it runs: what its calls are children of.

    There is one for a run of consecutive items, not one for each: it costs as much as a small
    item.  In a seeded run its path is that of the item under way.

    Attributes:
        depth: how many tasks enclose it.
        pending: its asynchronous calls whose results nobody has collected, those that
            ``waitAny`` has named last.
        path: where it stands in the tree of tasks; None unless the run is seeded.
        calls: how many calls it has made, in a seeded run.
        generators: the random generators that it has asked for, and the path of its item then.
    """

    __slots__ = ("calls", "depth", "generators", "path", "pending")

    def __init__(self, depth: int, path: tuple[int, ...] | None) -> None:
        self.depth = depth
        self.path = path
        self.pending: dict[Call, Any] | None = None
        self.calls = 0
        self.generators: tuple[Any, dict[str, Any]] | None = None


class CallingThread(threading.local):
    """What a thread runs, and whether it is the main thread of the worker."""

    context: Context | None = None
    main = False
    alone_at = float("-inf")  # when it last had to run its own work, for nobody else did
