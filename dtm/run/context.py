"""A task as it runs: what the calls that it makes are children of.

There is one context for a run of consecutive items, not one for each: a context costs
as much as a small item.  In a seeded run its path is that of the item under way.

Threads: that which runs the task.
"""

from __future__ import annotations

from typing import Any

from dtm.task import Call


class Context:
    """A task as it runs: what its calls are children of.

    Attributes:
        depth: how many tasks enclose it.
        pending: the results of its asynchronous calls whose end nobody has waited for.
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
