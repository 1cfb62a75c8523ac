"""What happened, recorded cheaply: the one hook through which events are noted.

``record`` is called at the few places that matter (a steal, a grant, a park, a
resumption, the end of a run) with a name and plain values.  Nothing is recorded
unless somebody has set a recorder, and then only handed over; analysis lives
elsewhere.

Rejected: log lines woven through the logic, as the original had.
"""

from __future__ import annotations

from collections.abc import Callable

Recorder = Callable[..., None]


class Trace:
    """Passes events on to a recorder, if there is one."""

    __slots__ = ("recorder",)

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.recorder = recorder

    def record(self, event: str, **values: object) -> None:
        """Note an event."""
        if self.recorder is not None:
            self.recorder(event, **values)
