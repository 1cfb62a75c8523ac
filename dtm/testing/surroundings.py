"""What a simulated worker needs of the world that it is in.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from dtm.task import Call
from dtm.testing.mail import Mail
from dtm.testing.network import Network

Worker = TypeVar("Worker", contravariant=True)  # noqa: PLC0105 - what it is, not what it can


class Surroundings(Protocol[Worker]):
    """What a worker asks of the world that it is in."""

    network: Network
    function: Callable[[object], None]
    failure: BaseException | None
    returned: float

    @property
    def watched(self) -> bool:
        """Whether somebody looks on after every event."""

    def alarm(self, when: float, worker: Worker, kind: str) -> None:
        """Have an alarm go off."""

    def post(self, sender: Worker, to: int, mail: Mail) -> None:
        """Send a message."""

    def delay(self) -> float:
        """Return how long a thread waits for the interpreter."""

    def called(self, call: Call) -> None:
        """Note a call that a task has made."""

    def collected(self, call: Call) -> None:
        """Check the results that a task has waited for."""

    def main_returned(self, worker: Worker) -> None:
        """End the run."""

    def ended(self, worker: Worker, reason: str | None) -> None:
        """Note that the run is over for a worker."""
