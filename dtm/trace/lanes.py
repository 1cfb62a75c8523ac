"""Where events stand in a viewer, and what they are called there: tracks, labels, details.

A worker has one track for its run, one for each stack of its main thread, one for its messages, one
for the calls that it made or got a part of.  What a track holds nests or follows each other;
threads of the user's, which do not, get as many tracks as they need.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtm.run.recording import (
    CALL,
    FOREIGN_STACK,
    IDLE_FLAG,
    KEY,
    KINDS,
    PARK,
    PART,
    RECEIVE,
    REST,
    RUN,
    SEND,
    STRIP,
    WAIT,
    YIELD,
)
from dtm.trace.files import INSTANTS, Events
from dtm.trace.recorded import RecordedRun

RUN_TRACK, FIRST_STACK, FOREIGN, MESSAGES, CALLS = 0, 1, 70_000, 80_000, 80_001
KIND_NAMES = {number: name for name, number in KINDS.items()}


class Shown(NamedTuple):
    """An event as a viewer shows it.

    ``begin`` and ``end`` are nanoseconds, the same for an instant; ``flow_out`` and ``flow_in``
    number the message that leaves or comes with it, 0 if none does; ``place`` is that among the
    events of the run.
    """

    place: int
    rank: int
    track: int
    kind: int
    label: str
    begin: int
    end: int
    flow_out: int
    flow_in: int
    details: dict[str, Any]


def track_name(track: int) -> str:
    """Return what a track is called."""
    if track == RUN_TRACK:
        return "run"
    if track in (MESSAGES, CALLS):
        return "messages" if track == MESSAGES else "calls"
    if track >= FOREIGN:
        return f"thread of the program's {track - FOREIGN + 1}"
    return "main thread" if track == FIRST_STACK else f"main thread, stack {track - FIRST_STACK}"


def shown_events(run: RecordedRun) -> Iterator[Shown]:
    """Yield all events of a run, track by track, each track in the order of its beginnings.

    Of those that begin at the same time the longer comes first, so that it holds the other; of
    those that end at the same time too, the one that was recorded later, for it held the other.
    """
    events = run.events
    out, into = _flows(run)
    tracks = _tracks(events)
    begins, ends = nanoseconds(events)
    order = np.lexsort((-np.arange(len(events)), -ends, begins, tracks, events["rank"]))
    columns = (events[name][order].tolist() for name in events.dtype.names or ())
    rest = (each[order].tolist() for each in (tracks, begins, ends, out, into))
    names = events.dtype.names or ()
    for place, row, (track, begin, end, leaves, comes) in zip(
        order.tolist(), zip(*columns, strict=True), zip(*rest, strict=True), strict=True
    ):
        event = dict(zip(names, row, strict=True))
        label, details = _described(run, event)
        yield Shown(
            place, event["rank"], track, event["kind"], label, begin, end, leaves, comes, details
        )


def nanoseconds(events: Events) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when events begin and end, in whole nanoseconds; instants end as they begin."""
    begins = np.rint(events["begin"] * 1e9).astype(np.int64)
    instant = np.isin(events["kind"], INSTANTS)
    ends = np.rint(np.where(instant, events["begin"], events["end"]) * 1e9).astype(np.int64)
    return begins, np.maximum(begins, ends)


def _flows(run: RecordedRun) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    out, into = np.zeros(len(run.events), np.int64), np.zeros(len(run.events), np.int64)
    numbers = np.arange(1, len(run.messages.sent) + 1)
    out[run.messages.sent] = numbers
    into[run.messages.came] = numbers
    return out, into


def _tracks(events: Events) -> NDArray[np.int64]:
    kinds = events["kind"]
    tracks = events["peer"].astype(np.int64) + FIRST_STACK
    tracks[kinds == RUN] = RUN_TRACK
    tracks[np.isin(kinds, (SEND, RECEIVE))] = MESSAGES
    tracks[np.isin(kinds, INSTANTS)] = CALLS
    foreign = np.flatnonzero(tracks == FIRST_STACK + FOREIGN_STACK)
    for rank in np.unique(events["rank"][foreign]).tolist():
        these = foreign[events["rank"][foreign] == rank]
        tracks[these] = FOREIGN + _lanes(events[these])
    return tracks


def _lanes(events: Events) -> NDArray[np.int64]:
    """Return for each of some spans a lane in which none overlaps."""
    begins, ends = nanoseconds(events)
    lanes, free = np.zeros(len(events), np.int64), list[int]()
    for place in np.argsort(begins, kind="stable").tolist():
        lane = next((n for n, end in enumerate(free) if end <= begins[place]), len(free))
        if lane == len(free):
            free.append(0)
        free[lane] = int(ends[place])
        lanes[place] = lane
    return lanes


def _described(run: RecordedRun, event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kind, function = event["kind"], run.functions[event["function"]]
    if kind == STRIP:
        return function, {
            "first item": event["index"], "items": event["count"], "own seconds": event["own"],
            "call": event["number"], "failed": bool(event["flag"]),
        }  # fmt: skip
    if kind in (SEND, RECEIVE):
        return _message(run, event)
    if kind in (CALL, PART):
        size = event["end"] if kind == CALL else event["count"]
        details = {"call": event["number"], "items": int(size), "depth": int(event["own"])}
        if kind == CALL:
            return f"calls {function}", {
                **details, "by call": event["count"], "in item": event["index"]
            }  # fmt: skip
        return f"has a part of {function}", {
            **details, "owner": event["peer"], "key": int(event["end"])
        }  # fmt: skip
    call = {"call": event["number"]}
    labels = {
        RUN: "run",
        PARK: f"parked, waits for {function}",
        YIELD: "gives way",
        REST: f"rests, waits for {function}" if function else "idle",
        WAIT: f"main waits for {function}",
        KEY: f"{function} leaves",
    }
    if kind == KEY:
        call["key"] = int(event["end"])
    if kind == REST:
        call["asks for work"] = event["flag"]
    return labels[kind], call


def _message(run: RecordedRun, event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = run.message_names[event["flag"] & ~IDLE_FLAG]
    details = {
        "worker": event["peer"], "bytes": event["index"], "items": event["count"],
        "serial": event["number"],
    }  # fmt: skip
    if event["kind"] == SEND:
        return f"{name} to {event['peer']}", details
    told = {"load of the sender": event["own"], "sender idle": bool(event["flag"] & IDLE_FLAG)}
    return f"{name} from {event['peer']}", {**details, **told}
