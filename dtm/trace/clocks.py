"""One time for all machines, estimated from the messages between them.

Workers of one machine share a clock.  Between two machines, a message that A sent at ``s`` by its
clock and B had at ``r`` by its own took ``r - s`` less what B's clock is ahead.  The fastest
message each way bounds that from both sides, and if these two took equally long it is half the
difference of the two bounds; it errs by half their sum at most.  Clocks drift apart by some
microseconds a second, so a long run is cut into windows and a line is laid through their estimates.
Machines are joined to the root's along the way with the smallest sum of errors.

What can go wrong: a machine whose messages to and from the others were not recorded has only its
date and time, which may be seconds off; ``Clock.error`` is infinite then.

Threads: any.

Rejected: NTP's word for it.  Hosts of a cluster are often off by milliseconds, a message takes
microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtm.run.recording import RECEIVE, SEND
from dtm.trace.files import Events, WorkerFile

Floats = NDArray[np.float64]
WINDOWS = 16
DRIFT_SECONDS = 5.0
_ONE_WAY = 1.0


class Messages(NamedTuple):
    """The messages of a run that were recorded at both ends.

    Attributes:
        source, target: ranks.
        sent, came: places of their events among those of the two.

    Those of one pair of workers follow each other.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    sent: NDArray[np.int64]
    came: NDArray[np.int64]


class Clock(NamedTuple):
    """What turns the time of a machine into that of the root's: ``time - ahead - drift * time``.

    Attributes:
        ahead: seconds, at time 0 of its own.
        drift: seconds a second.
        error: seconds by which this may be wrong.
    """

    ahead: float
    drift: float
    error: float

    def straight(self, times: Floats) -> Floats:
        """Return times by the root's clock."""
        return times - self.ahead - self.drift * times


def pair_messages(files: Sequence[WorkerFile]) -> Messages:
    """Find both ends of each message: those of two workers arrive in the order they were sent."""
    came = {each.rank: _by_peer(each.events, RECEIVE) for each in files}
    columns: list[tuple[NDArray[np.int64], ...]] = []
    for each in files:
        for peer, sent in _by_peer(each.events, SEND).items():
            there = came.get(peer, {}).get(each.rank)
            if there is not None:
                both = min(len(sent), len(there))
                source, target = np.full(both, each.rank), np.full(both, peer)
                columns.append((source, target, sent[:both], there[:both]))
    if not columns:
        return Messages(*(np.empty(0, np.int64) for _ in range(4)))
    return Messages(*map(np.concatenate, zip(*columns, strict=True)))


def _by_peer(events: Events, kind: int) -> dict[int, NDArray[np.int64]]:
    places = np.flatnonzero(events["kind"] == kind)
    peers = events["peer"][places]
    order = np.argsort(peers, kind="stable")
    places, peers = places[order], peers[order]
    found, firsts = np.unique(peers, return_index=True)
    return dict(zip(found.tolist(), np.split(places, firsts[1:]), strict=False))


def estimate_clocks(files: Sequence[WorkerFile], messages: Messages) -> dict[str, Clock]:
    """Return the clock of each machine, by its name."""
    machines = {each.rank: str(each.header["machine"]) for each in files}
    events = {each.rank: each.events for each in files}
    ways: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    changes = (np.diff(messages.source) != 0) | (np.diff(messages.target) != 0)
    for these in np.split(np.arange(len(messages.source)), np.flatnonzero(changes) + 1):
        if not len(these):
            continue
        source, target = int(messages.source[these[0]]), int(messages.target[these[0]])
        way = machines[source], machines[target]
        if way[0] != way[1]:
            sent = events[source]["end"][messages.sent[these]]
            came = events[target]["begin"][messages.came[these]]
            ways.setdefault(way, []).append((sent, came))
    links: dict[str, dict[str, Clock]] = {}
    for here, there in ways:
        links.setdefault(here, {})[there] = _link(ways, here, there)
        links.setdefault(there, {})[here] = _link(ways, there, here)
    clocks = _joined(links, machines[files[0].rank])
    first = files[0].header
    for each in files:  # those that no message joins
        head = each.header
        ahead = (head["clock"] - head["time"]) - (first["clock"] - first["time"])
        clocks.setdefault(str(head["machine"]), Clock(ahead, 0.0, float("inf")))
    return clocks


def _link(ways: dict[tuple[str, str], list[tuple[Floats, Floats]]], here: str, there: str) -> Clock:
    """Return the clock of ``there`` by that of ``here``."""
    out = [np.concatenate(each) for each in zip(*ways.get((here, there), []), strict=True)]
    back = [np.concatenate(each) for each in zip(*ways.get((there, here), []), strict=True)]
    if not back:
        return Clock(float(np.min(out[1] - out[0])), 0.0, _ONE_WAY)
    if not out:
        return Clock(-float(np.min(back[1] - back[0])), 0.0, _ONE_WAY)
    times, ahead, errors = _windows(out[1], out[1] - out[0], back[0], back[1] - back[0])
    best = int(np.argmin(errors))
    if len(times) < WINDOWS // 2 or times[-1] - times[0] < DRIFT_SECONDS:
        return Clock(float(ahead[best]), 0.0, float(errors[best]))
    middle = times.mean()
    drift, level = np.polyfit(times - middle, ahead, 1, w=1.0 / (errors + 1e-9))
    # Of a time t there, level + drift * (t - middle) is what that clock is ahead.
    return Clock(float(level - drift * middle), float(drift), float(errors[best]))


def _windows(
    there: Floats, out: Floats, left: Floats, back: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return for windows of time: their middle, what the other clock is ahead, the error.

    ``there`` and ``left`` are times of that clock at which messages came to it and left it.
    """
    first, last = min(there.min(), left.min()), max(there.max(), left.max())
    count = WINDOWS if last - first >= DRIFT_SECONDS else 1
    edges = np.linspace(first, last, count + 1)[1:-1]
    fastest_out, fastest_back = np.full(count, np.inf), np.full(count, np.inf)
    np.minimum.at(fastest_out, np.searchsorted(edges, there), out)
    np.minimum.at(fastest_back, np.searchsorted(edges, left), back)
    both = np.isfinite(fastest_out) & np.isfinite(fastest_back)
    if not both.any():
        both = np.ones(1, bool)
        fastest_out, fastest_back = np.array([out.min()]), np.array([back.min()])
        count = 1
    width = (last - first) / count
    times = first + width * (np.flatnonzero(both) + 0.5)
    fastest_out, fastest_back = fastest_out[both], fastest_back[both]
    return times, (fastest_out - fastest_back) / 2, np.abs(fastest_out + fastest_back) / 2


def _joined(links: dict[str, dict[str, Clock]], root: str) -> dict[str, Clock]:
    """Return the clocks of all machines that messages join to the root's, the surest way."""
    clocks: dict[str, Clock] = {}
    heap = [(0.0, root, Clock(0.0, 0.0, 0.0))]
    while heap:
        error, machine, clock = heappop(heap)
        if machine in clocks:
            continue
        clocks[machine] = clock
        for other, link in links.get(machine, {}).items():
            if other not in clocks:
                # t_root = (t - a)(1 - d) - A - D(...), the products of drifts left out.
                ahead = clock.ahead + link.ahead * (1.0 - clock.drift)
                total = Clock(ahead, clock.drift + link.drift, error + link.error)
                heappush(heap, (total.error, other, total))
    return clocks
