"""A recorded run in the JSON of Chrome's trace viewer (chrome://tracing), which Perfetto reads too.

Threads: any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

from dtm.trace.files import INSTANTS
from dtm.trace.lanes import KIND_NAMES, Shown, shown_events, track_name
from dtm.trace.recorded import RecordedRun


def write_chrome(run: RecordedRun, file: IO[str]) -> None:
    """Write a run, an event a line."""
    file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
    separator = ""
    for event in _events(run):
        file.write(separator + json.dumps(event))
        separator = ",\n"
    file.write("\n]}\n")


def _events(run: RecordedRun) -> Iterator[dict[str, Any]]:
    for rank in run.ranks:
        yield _metadata(rank, "process_name", name=run.called(rank))
        yield _metadata(rank, "process_sort_index", sort_index=rank)
    last = None
    for shown in shown_events(run):
        if (shown.rank, shown.track) != last:
            last = shown.rank, shown.track
            named = {"tid": shown.track}
            yield {**_metadata(shown.rank, "thread_name", name=track_name(shown.track)), **named}
            order = _metadata(shown.rank, "thread_sort_index", sort_index=shown.track)
            yield {**order, **named}
        yield from _of(shown)


def _metadata(rank: int, name: str, /, **values: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": rank + 1, "name": name, "args": values}


def _of(shown: Shown) -> Iterator[dict[str, Any]]:
    begin, duration = shown.begin / 1000, (shown.end - shown.begin) / 1000
    base = {"pid": shown.rank + 1, "tid": shown.track, "ts": begin, "cat": KIND_NAMES[shown.kind]}
    base = {**base, "name": shown.label, "args": shown.details}
    if shown.kind in INSTANTS:
        yield {**base, "ph": "i", "s": "t"}
    else:
        yield {**base, "ph": "X", "dur": duration}
    flow = {
        "pid": shown.rank + 1,
        "tid": shown.track,
        "ts": begin,
        "cat": "message",
        "name": "message",
    }
    if shown.flow_out:
        yield {**flow, "ph": "s", "id": shown.flow_out}
    if shown.flow_in:
        yield {**flow, "ph": "f", "bp": "e", "id": shown.flow_in}
