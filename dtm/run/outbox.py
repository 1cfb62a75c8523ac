"""What is to leave a worker and waits for more of its kind: results, and lines that tasks print.

A message costs both ends several microseconds, more than a short item.  So results wait until
``MOST_SEGMENTS`` are there for one owner, for ``RESULTS_SECONDS``, or until the worker does
something long, whichever comes first; lines leave every ``OUTPUT_SECONDS``.

Shared attributes: all are written and read by any thread under the worker's lock.

Threads: under the worker's lock.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from time import perf_counter
from typing import Any, ClassVar

from dtm.core.messages import Output, Segment

RESULTS_SECONDS = 300e-6
MOST_SEGMENTS = 256
OUTPUT_SECONDS = 5e-3


class Outbox:
    """The results and lines of one worker that have not been sent.

    Args:
        lock: the worker's.

    Attributes:
        waits: whether anything is in it.
    """

    SHARED: ClassVar = dict.fromkeys(
        ("waits", "_results", "_results_since", "_lines", "_lines_sent"), "lock"
    )

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self._results: dict[int, list[Segment]] = {}
        self._results_since = 0.0
        self._lines: list[Output] = []
        self._lines_sent = 0.0
        self.waits = False

    def add_results(self, owner: int, segment: Segment) -> bool:
        """Keep results for their owner; return whether there are enough to be sent now."""
        if not self._results:
            self._results_since = perf_counter()
        kept = self._results.setdefault(owner, [])
        kept.append(segment)
        self.waits = True
        return len(kept) >= MOST_SEGMENTS

    def results_due(self, now: float) -> bool:
        """Whether results have waited for long enough."""
        return bool(self._results) and now - self._results_since > RESULTS_SECONDS

    def take_results(self) -> dict[int, list[Segment]]:
        """Return the results by owner, and keep them no longer."""
        results, self._results = self._results, {}
        self.waits = bool(self._lines)
        return results

    def add_lines(self, stream: str, text: str) -> None:
        """Keep lines that a task has printed."""
        self._lines.append(Output(stream, text))
        self.waits = True

    def lines_due(self, now: float) -> bool:
        """Whether there are lines, and none has been sent for a while."""
        return bool(self._lines) and now - self._lines_sent > OUTPUT_SECONDS

    def take_lines(self) -> list[Output]:
        """Return the lines, successive ones of one stream together, and keep them no longer."""
        lines, self._lines = self._lines, []
        self._lines_sent = perf_counter()
        self.waits = bool(self._results)
        return [
            Output(stream, "".join(line.text for line in together))
            for stream, together in groupby(lines, key=attrgetter("stream"))
        ]
