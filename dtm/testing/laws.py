"""The names of the laws, each with what a run says that has broken it.

What each demands stands in :mod:`dtm.testing.invariants`, under the same name.

Threads: one.
"""

from __future__ import annotations

from enum import Enum

from dtm.errors import InvariantError


class Law(Enum):
    """A law of a simulated run."""

    ONE_PLACE = "one place"
    HONEST_COUNTS = "honest counts"
    DELIVERED_ONCE = "delivered once"
    EXACT_LEDGER = "the ledger is exact"
    CANCELLED = "cancelled means cancelled"
    NO_LIFELINE_LOST = "no lifeline is lost"
    NO_REQUEST_LOST = "no request is lost"
    ANSWERED_ONCE = "answered once"
    TO_OTHERS = "messages go to others"
    NEWEST_REPORTS = "reports are the newest"
    TRUE_REPORTS = "reports tell the truth"
    NOBODY_FORGOTTEN = "nobody is forgotten"
    NOBODY_BURIED = "nobody is buried by a stranger"
    TRUE_MODES = "modes tell the truth"
    NEAR_TIMERS = "timers are near"
    SOON_SILENT = "soon silent"
    SILENT_WHEN_IDLE = "silent when idle"
    GETS_ON = "it gets on"
    STOP = "stop means stop"
    ROOT_ENDS_LAST = "the root ends last"
    QUIET_AT_THE_END = "quiet at the end"

    def broken(self, details: str) -> InvariantError:
        """Return the error that names this law."""
        return InvariantError(f"{self.value}: {details}")
