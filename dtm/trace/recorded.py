"""A recorded run: what all workers did, by one clock.

Times are seconds from the first event, by the root's clock.  The events of all workers stand in
one array, worker by worker, each worker's in the order in which it recorded them; ``rank`` and
``function`` (a place in ``functions``) are added to what was recorded.

Threads: any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtm.run.recording import CALL, PART, RECEIVE, RUN, SEND
from dtm.trace.clocks import Clock, Messages, estimate_clocks, pair_messages
from dtm.trace.files import FIELDS, INSTANTS, Events, WorkerFile, read_directory

SPANNED = np.dtype([*((name, FIELDS[name]) for name in FIELDS.names or ()), ("rank", "<i4"),
                    ("function", "<i4")])  # fmt: skip
_MESSAGE_KINDS = (SEND, RECEIVE)


def counted(count: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class RecordedRun:
    """What was recorded of a run.

    Attributes:
        size: how many workers it had.
        hosts: the host of each worker that left a trace, by rank.
        functions: names of functions; 0 is "", which is none.
        events: all events.
        first: place of each worker's first event, by rank.
        messages: both ends of each message; places are those in ``events``.
        message_names: kinds of messages, by number.
        clocks: of the machines.
        slow: the slowest items: rank, call, index, seconds, item, function.
        whole: ranks whose trace has an end.
        duration: seconds from the first event to the last.
    """

    size: int
    hosts: dict[int, str]
    functions: list[str]
    events: Events
    first: dict[int, int]
    messages: Messages
    message_names: list[str]
    clocks: dict[str, Clock]
    slow: list[dict[str, Any]]
    whole: frozenset[int]
    duration: float

    @property
    def ranks(self) -> list[int]:
        """The workers that left a trace, in order."""
        return list(self.hosts)

    @property
    def gaps(self) -> list[str]:
        """What is not recorded of the run, in words."""
        found = []
        absent, cut = self.size - len(self.hosts), len(self.hosts) - len(self.whole)
        if absent:
            found.append(f"{counted(absent, 'worker')} left no trace")
        if cut:
            traces = (
                "the trace of 1 worker has" if cut == 1 else f"the traces of {cut} workers have"
            )
            found.append(f"{traces} no end: killed, or the disk was full")
        return found

    def of_kind(self, *kinds: int) -> Events:
        """Return the events of some kinds."""
        found: Events = self.events[np.isin(self.events["kind"], kinds)]
        return found

    def called(self, rank: int) -> str:
        """Return how a worker is named."""
        return f"worker {rank} ({self.hosts[rank]})"


def read_run(directory: str) -> RecordedRun:
    """Read the trace in a directory.

    Raises:
        TraceError: there is none, or it cannot be read.
    """
    return merge(read_directory(directory))


def merge(files: list[WorkerFile]) -> RecordedRun:
    """Bring together what the workers of a run have recorded."""
    paired = pair_messages(files)
    clocks = estimate_clocks(files, paired)
    names: dict[str, int] = {"": 0}
    parts, first, place = [], {}, 0
    slow: list[dict[str, Any]] = []
    for each in files:
        first[each.rank] = place
        place += len(each.events)
        events, of_call = _with_functions(each, names)
        _straighten(events, clocks[str(each.header["machine"])])
        parts.append(events)
        functions = list(names)
        slow += [
            {**item, "rank": each.rank, "function": functions[of_call[item["call"]]]}
            for item in each.texts.get("slow", ())
        ]
    events = np.concatenate(parts)
    duration = _from_zero(events)
    base = np.zeros(max(first) + 1, np.int64)
    base[list(first)] = list(first.values())
    messages = Messages(
        paired.source,
        paired.target,
        paired.sent + base[paired.source],
        paired.came + base[paired.target],
    )
    return RecordedRun(
        size=int(files[0].header["size"]),
        hosts={each.rank: str(each.header["host"]) for each in files},
        functions=list(names),
        events=events,
        first=first,
        messages=messages,
        message_names=list(files[0].header["messages"]),
        clocks=clocks,
        slow=sorted(slow, key=lambda item: -item["seconds"]),
        whole=frozenset(events["rank"][events["kind"] == RUN].tolist()),
        duration=duration,
    )


def _with_functions(file: WorkerFile, names: dict[str, int]) -> tuple[Events, NDArray[np.int64]]:
    """Return the events of a worker with rank and function, and the function of each call."""
    texts = file.texts.get("function", ())
    known = np.array([0, *(names.setdefault(text["name"], len(names)) for text in texts)])
    events = np.empty(len(file.events), SPANNED)
    for name in FIELDS.names or ():
        events[name] = file.events[name]
    events["rank"] = file.rank
    kinds = events["kind"]
    calls, parts = events[kinds == CALL], events[kinds == PART]
    most = int(events["number"][~np.isin(kinds, _MESSAGE_KINDS)].max(initial=0))
    of_call = np.zeros(most + 1, np.int64)
    of_call[calls["number"]] = known[np.minimum(calls["peer"], len(known) - 1)]
    of_call[parts["number"]] = known[np.minimum(parts["index"], len(known) - 1)]
    is_message = np.isin(kinds, _MESSAGE_KINDS)
    events["function"] = of_call[np.where(is_message, 0, events["number"])]
    return events, of_call


def _straighten(events: Events, clock: Clock) -> None:
    events["begin"] = clock.straight(events["begin"])
    spans = ~np.isin(events["kind"], INSTANTS)
    events["end"][spans] = clock.straight(events["end"][spans])


def _from_zero(events: Events) -> float:
    """Count times from the first event on; return when the last ends."""
    if not len(events):
        return 0.0
    spans = ~np.isin(events["kind"], INSTANTS)
    zero = float(events["begin"].min())
    events["begin"] -= zero
    events["end"][spans] -= zero
    return float(max(events["begin"].max(), events["end"][spans].max(initial=0.0)))
