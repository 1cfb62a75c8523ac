"""What each worker did at each moment: its main thread's time cut into pieces that do not overlap.

A piece belongs to the innermost span under way: to the strip on top, not to those below it.  The
root's time outside of all its waits is ``main``'s own.  Time that belongs to nothing recorded is
dtm's own, or that of starting.

Threads: any.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dtm.run.recording import FOREIGN_STACK, PARK, REST, RUN, STRIP, WAIT, YIELD
from dtm.trace.files import Events
from dtm.trace.recorded import RecordedRun

IDLE = -1  # in place of a function
MAIN = -2
_SPANS = (STRIP, PARK, YIELD, REST, WAIT)


@dataclass(frozen=True)
class Segments:
    """Pieces of time, in the order of the workers and of time.

    Attributes:
        rank: whose they are.
        begin, end: seconds of the recorded run.
        what: number of the function that ran, or ``IDLE``, or ``MAIN``.
        place: of the event that they are part of, among those of the run.
    """

    rank: NDArray[np.int64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    what: NDArray[np.int64]
    place: NDArray[np.int64]

    def chosen(self, mask: NDArray[np.bool_]) -> Segments:
        """Return some of them."""
        return Segments(
            self.rank[mask], self.begin[mask], self.end[mask], self.what[mask], self.place[mask]
        )

    @property
    def seconds(self) -> NDArray[np.float64]:
        """How long they are."""
        return self.end - self.begin


def main_span(run: RecordedRun) -> tuple[float, float]:
    """Return when ``main`` began and ended; of a run that was killed, the first and last event."""
    runs = run.of_kind(RUN)
    root = runs[runs["rank"] == 0]
    return (float(root["begin"][0]), float(root["end"][0])) if len(root) else (0.0, run.duration)


def cut(run: RecordedRun) -> Segments:
    """Cut a run into pieces, from the beginning of ``main`` to its end."""
    first, last = main_span(run)
    events = run.events
    wanted = np.isin(events["kind"], _SPANS) & (events["peer"] != FOREIGN_STACK)
    places = np.flatnonzero(wanted)
    spans = events[places]
    order = np.lexsort((-places, -spans["end"], spans["begin"], spans["peer"], spans["rank"]))
    columns: list[list[float]] = [[], [], [], [], []]
    bounds = _bounds(spans[order])
    for low, high in pairwise(bounds):
        these = order[low:high]
        of_root = int(spans["rank"][these[0]]) == 0 and int(spans["peer"][these[0]]) == 0
        base = (first, last) if of_root else None
        _cut_stack(spans[these], places[these], base, columns)
    rank, begin, end, what, place = (np.array(each) for each in columns)
    kept = (begin < last) & (end > first)
    order = np.lexsort((begin, rank))
    order = order[kept[order]]
    return Segments(
        rank[order].astype(np.int64),
        np.maximum(begin[order], first),
        np.minimum(end[order], last),
        what[order].astype(np.int64),
        place[order].astype(np.int64),
    )


def _bounds(spans: Events) -> list[int]:
    """Return where the spans of each stack begin, and where the last end."""
    if not len(spans):
        return [0]
    changes = (np.diff(spans["rank"]) != 0) | (np.diff(spans["peer"].astype(np.int64)) != 0)
    return [0, *(np.flatnonzero(changes) + 1).tolist(), len(spans)]


def _cut_stack(
    spans: Events,
    places: NDArray[np.int64],
    base: tuple[float, float] | None,
    columns: list[list[float]],
) -> None:
    """Cut the spans of one stack, which nest."""
    rank = int(spans["rank"][0])
    ranks, begins, ends, whats, owners = columns

    def piece(begin: float, end: float, what: int | None, place: int) -> None:
        if what is not None and end > begin:
            ranks.append(rank)
            begins.append(begin)
            ends.append(end)
            whats.append(what)
            owners.append(place)

    under_way: list[tuple[float, int | None, int]] = []
    now = 0.0
    if base is not None:
        under_way.append((base[1], MAIN, -1))
        now = base[0]
    fields = (spans[name].tolist() for name in ("begin", "end", "kind", "function"))
    for begin, end, kind, function, place in zip(*fields, places.tolist(), strict=True):
        while under_way and under_way[-1][0] <= begin:
            until, what, owner = under_way.pop()
            piece(now, until, what, owner)
            now = max(now, until)
        if under_way:
            piece(now, begin, *under_way[-1][1:])
        now = begin
        under_way.append((end, _what(kind, function), place))
    while under_way:
        until, what, owner = under_way.pop()
        piece(now, until, what, owner)
        now = max(now, until)


def _what(kind: int, function: int) -> int | None:
    """Return what a span's own time is: a function's, idle, or (None) dtm's own."""
    if kind == STRIP:
        return int(function)
    return IDLE if kind == REST else None
