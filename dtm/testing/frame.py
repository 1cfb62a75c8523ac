"""One range that a simulated worker runs: what a frame of the interpreter's stack is to a real one.

A list of frames is a stack, the task that runs or waits on top of those that wait for it.

Threads: one.

Rejected: a generator for each task.  The laws have to look into what is half done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from dtm.task import Call, Range
from dtm.testing.programs import Step


class Frame:
    """A range that runs, strip by strip, or ``main``, which has none.

    Attributes:
        position, hi: what of the strip has not been begun.
        lo: where the strip began.
        steps: the rest of the task that runs, if it is not a leaf; ``taken`` are over.
        waiting: the call that this task waits for; ``pending`` are those after it.
        catches: whether this task goes on if one of these raises.
        values: of the segment under construction, which began at ``start``.
    """

    __slots__ = (
        "began", "catches", "failure", "hi", "length", "lo", "parks", "pending", "position",
        "raised", "shipped", "start", "steps", "taken", "task", "values", "waiting", "work",
    )  # fmt: skip

    def __init__(self, work: Range | None, now: float) -> None:
        self.work = work
        self.lo = self.hi = self.position = self.start = work.lo if work else 0
        self.length = 0
        self.began = self.shipped = now
        self.parks = 0
        self.failure: BaseException | None = None
        self.raised: BaseException | None = None
        self.steps: Iterator[Step] | None = None
        self.taken = 0
        self.task: Any = None
        self.catches = False
        self.waiting: Call | None = None
        self.pending: deque[Call] = deque()
        self.values: list[Any] = []
