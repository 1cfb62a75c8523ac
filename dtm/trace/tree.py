"""The tree of tasks of a recorded run, as a program that the simulator runs.

Each call that a task made is a map over items, whose durations were recorded; an item that made
calls itself is a script: work, a map, work ...  Calls that were under way together become one map,
or single calls.  ``main`` is the script at the root; its own work between calls is what the root
did outside of all waits.

What is approximate: items of one strip have equal durations; an item that made several calls one
after the other worked equally long between them, but for what it did before the first.  Items that
were not recorded (of a run that was killed) take no time.

Threads: any.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dtm.errors import TraceError
from dtm.run.recording import CALL, KEY, PART, STRIP
from dtm.testing import Calls, Script
from dtm.testing.programs import Step, Task
from dtm.trace.recorded import RecordedRun
from dtm.trace.segments import MAIN, Segments, main_span

Name = tuple[int, int]  # a call: the rank of its owner, and its number there


@dataclass
class RecordedCall:
    """One call of the run.

    Attributes:
        made: when.
        over: when its last strip ended.
        depth: of the items.
        parent: the call whose item made it, None if ``main`` did.
        item: that item.
        seconds: own seconds of each item.
        begins: of items that made calls: when their strip began.
        children: the calls that items made, by item.
    """

    made: float
    over: float
    depth: int
    parent: Name | None
    item: int
    seconds: NDArray[np.float64]
    begins: dict[int, float] = field(default_factory=dict)
    children: dict[int, list[RecordedCall]] = field(default_factory=dict)


def program_of(run: RecordedRun, segments: Segments, extra: float = 0.0) -> Script:
    """Return the program of a run; each item takes ``extra`` seconds more than it did.

    Raises:
        TraceError: the run made no calls.
    """
    calls = _calls(run)
    if not calls:
        raise TraceError("the recorded run made no call, so there is nothing to predict")
    _note_strips(run, calls)
    roots = []
    for call in calls.values():
        parent = calls.get(call.parent) if call.parent is not None else None
        if parent is None:
            roots.append(call)
        else:
            parent.children.setdefault(call.item, []).append(call)
    tasks: dict[int, list[Task]] = {}
    for call in sorted(calls.values(), key=lambda each: -each.depth):
        tasks[id(call)] = _tasks(call, tasks, extra)
    return Script(*_main(run, segments, roots, tasks))


def _calls(run: RecordedRun) -> dict[Name, RecordedCall]:
    found = {}
    names = _names(run)
    for event in run.of_kind(CALL):
        rank, number, by = int(event["rank"]), int(event["number"]), int(event["count"])
        parent = names.get((rank, by), (rank, by)) if by else None
        begin, size = float(event["begin"]), int(event["end"])
        found[rank, number] = RecordedCall(
            begin, begin, int(event["own"]), parent, int(event["index"]), np.zeros(size)
        )
    return found


def _names(run: RecordedRun) -> dict[Name, Name]:
    """Return for the parts that workers had of others' calls: the call."""
    keys = {
        (int(each["rank"]), int(each["end"])): (int(each["rank"]), int(each["number"]))
        for each in run.of_kind(KEY)
    }
    return {
        (int(each["rank"]), int(each["number"])): keys[int(each["peer"]), int(each["end"])]
        for each in run.of_kind(PART)
        if (int(each["peer"]), int(each["end"])) in keys
    }


def _note_strips(run: RecordedRun, calls: dict[Name, RecordedCall]) -> None:
    names = _names(run)
    parents = {(call.parent, call.item) for call in calls.values()}
    strips = run.of_kind(STRIP)
    fields = ("rank", "number", "index", "count", "own", "begin", "end")
    for rank, number, lo, count, own, begin, end in zip(
        *(strips[name].tolist() for name in fields), strict=True
    ):
        name = names.get((rank, number), (rank, number))
        call = calls.get(name)
        if call is None or not count:
            continue
        call.seconds[lo : lo + count] = own / count
        call.over = max(call.over, end)
        for item in range(lo, lo + count):
            if (name, item) in parents:
                call.begins[item] = begin


def _tasks(call: RecordedCall, tasks: dict[int, list[Task]], extra: float) -> list[Task]:
    found: list[Task] = (call.seconds + extra).tolist()
    for item, children in call.children.items():
        if item < len(found):
            found[item] = _script(call, item, children, tasks, extra)
    return found


def _script(
    call: RecordedCall,
    item: int,
    children: list[RecordedCall],
    tasks: dict[int, list[Task]],
    extra: float,
) -> Script:
    """Return an item that made calls."""
    own = float(call.seconds[item])
    groups = _together(children)
    before = min(own, max(0.0, groups[0][0].made - call.begins.get(item, groups[0][0].made)))
    between = (own - before) / len(groups)
    steps: list[Step] = [before + extra]
    for group in groups:
        steps += [_step(group, tasks), between]
    return Script(*steps)


def _together(children: list[RecordedCall]) -> list[list[RecordedCall]]:
    """Return calls in the order in which they were made, those under way together in one group."""
    groups: list[list[RecordedCall]] = []
    over = -1.0
    for call in sorted(children, key=lambda each: each.made):
        if groups and call.made < over:
            groups[-1].append(call)
        else:
            groups.append([call])
        over = max(over, call.over)
    return groups


def _step(group: list[RecordedCall], tasks: dict[int, list[Task]]) -> Step:
    together = [task for call in group for task in tasks[id(call)]]
    if len(group) > 1 and all(len(call.seconds) == 1 for call in group):
        return Calls(together)
    return together


def _main(
    run: RecordedRun,
    segments: Segments,
    roots: list[RecordedCall],
    tasks: dict[int, list[Task]],
) -> list[Step]:
    own = segments.chosen(segments.what == MAIN)
    begins = np.append(own.begin, np.inf)
    spent = np.concatenate(([0.0], np.cumsum(own.seconds)))

    def until(when: float) -> float:
        """Return the seconds of its own that ``main`` had spent by a time."""
        place = int(np.searchsorted(begins, when, side="right")) - 1
        if place < 0:
            return 0.0
        return float(spent[place] + min(when - own.begin[place], own.seconds[place]))

    steps: list[Step] = []
    done = 0.0
    for group in _together(roots):
        by_now = until(group[0].made)
        steps += [max(0.0, by_now - done), _step(group, tasks)]
        done = by_now
    steps.append(max(0.0, until(main_span(run)[1]) - done))
    return steps
