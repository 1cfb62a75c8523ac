"""What the runner of tasks needs of the worker that it belongs to.

Threads: those that may call it are said in :mod:`dtm.run.worker`, which does it.

Rejected: to hand the runner the worker itself.  Runs under a controlled scheduler of threads would
then be of another code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dtm.core.messages import Segment
from dtm.core.scheduler import Effect
from dtm.task import Call


class World(Protocol):
    """What the runner needs of the worker that it belongs to."""

    lock: Any
    where: str

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects."""

    def service(self) -> None:
        """Read messages and answer them."""

    def idle(self) -> None:
        """The main thread has nothing to run."""

    def rest(self, timeout: float) -> None:
        """Sleep until a message comes, for at most so many seconds."""

    def nudge(self) -> None:
        """End a rest."""

    def busy(self) -> None:
        """The main thread, which has rested, goes on with a task."""

    def ship(self, owner: int, segment: Segment) -> None:
        """Send results to the owner of their call, soon."""

    def flush(self) -> None:
        """Send all results now."""

    def broken(self, error: BaseException) -> None:
        """End the run for an error of dtm itself."""

    def give_back(self, call: Call, lo: int, hi: int, error: BaseException) -> None:
        """Give items of which the function cannot be read here back to their owner."""

    def located(self, call: Call, index: int, exception: BaseException) -> None:
        """Note on an exception where it happened."""
