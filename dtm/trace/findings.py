"""What a recorded run shows: its figures, POP's efficiencies, who stole from whom, over time.

The terms are those of the POP methodology (Performance Optimisation and Productivity, a European
centre of excellence): parallel efficiency is load balance times communication efficiency, and that
is serialisation times transfer.

Threads: any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtm.run.figures import Figures, FunctionFigures
from dtm.run.recording import IDLE_FLAG, RECEIVE, RUN, SEND, STRIP
from dtm.trace.recorded import RecordedRun
from dtm.trace.segments import IDLE, MAIN, Segments, cut, main_span

BINS = 600


@dataclass(frozen=True)
class Pop:
    """The efficiencies, each between 0 and 1.

    Attributes:
        parallel: the mean of the workers' useful seconds, by the duration.
        balance: their mean by their maximum.
        communication: their maximum by the duration: serialisation times transfer.
        serialisation: what communication would be if messages cost nothing.
        transfer: what messages and dtm's own work take from the worker with the most to do.
    """

    parallel: float
    balance: float
    communication: float
    serialisation: float
    transfer: float


@dataclass(frozen=True)
class Findings:
    """What a recorded run shows.

    Attributes:
        run: what it was.
        segments: what each worker did at each moment.
        figures: where the core-seconds went.
        pop: the efficiencies.
        useful: seconds of the program's own code, by rank in the order of ``run.ranks``.
        times: edges of the bins of time.
        shares: for each bin, the share of the workers that ran items, ran ``main``, had nothing.
        stolen: items granted, by victim and thief, in the order of ``run.ranks``.
    """

    run: RecordedRun
    segments: Segments
    figures: Figures
    pop: Pop
    useful: NDArray[np.float64]
    times: NDArray[np.float64]
    shares: NDArray[np.float64]
    stolen: NDArray[np.float64]


def find(run: RecordedRun) -> Findings:
    """Look at a recorded run."""
    segments = cut(run)
    figures = _figures(run, segments)
    useful = _useful(run, segments)
    edges, shares = _over_time(run, segments)
    return Findings(
        run, segments, figures, _pop(run, figures, useful), useful, edges, shares, _stolen(run)
    )


def _figures(run: RecordedRun, segments: Segments) -> Figures:
    first, last = main_span(run)
    found = Figures(run.size, last - first)
    places = {rank: place for place, rank in enumerate(run.ranks)}
    own = _by_rank(run, segments.chosen(segments.what >= 0))
    idle = _by_rank(run, segments.chosen(segments.what == IDLE))
    found.busy = {rank: float(own[place]) for rank, place in places.items()}
    found.resting = {rank: float(idle[place]) for rank, place in places.items()}
    runs = run.of_kind(RUN)
    late = np.maximum(0.0, np.minimum(runs["begin"], last) - first).sum()
    found.starting = float(late) + (run.size - len(run.ranks)) * found.duration
    found.serial = float(segments.seconds[segments.what == MAIN].sum())
    messages = run.of_kind(SEND, RECEIVE)
    found.pickling = float((messages["end"] - messages["begin"]).sum())
    found.functions = _functions(run)
    found.alone = _alone(run, segments)
    return found


def _by_rank(run: RecordedRun, segments: Segments) -> NDArray[np.float64]:
    sums: Any = np.bincount(segments.rank, segments.seconds, run.size)
    found: NDArray[np.float64] = sums[run.ranks]
    return found


def _useful(run: RecordedRun, segments: Segments) -> NDArray[np.float64]:
    return _by_rank(run, segments.chosen(segments.what != IDLE))


def _functions(run: RecordedRun) -> dict[str, FunctionFigures]:
    strips = run.of_kind(STRIP)
    strips = strips[strips["count"] > 0]
    own, counts = strips["own"].astype(np.float64), strips["count"].astype(np.float64)
    size = len(run.functions)
    sums: dict[str, Any] = {
        "items": np.bincount(strips["function"], counts, size),
        "strips": np.bincount(strips["function"], np.ones(len(strips)), size),
        "seconds": np.bincount(strips["function"], own, size),
        "squares": np.bincount(strips["function"], own * own / counts, size),
    }
    longest = np.zeros(size)
    each = own / counts
    np.maximum.at(longest, strips["function"], each)
    at = np.zeros(size)
    most = each >= longest[strips["function"]]
    at[strips["function"][most]] = strips["index"][most]
    return {
        name: FunctionFigures(
            **{what: float(values[number]) for what, values in sums.items()},
            longest=float(longest[number]),
            longest_at=float(at[number]),
        )
        for number, name in enumerate(run.functions)
        if sums["strips"][number]
    }


def _alone(run: RecordedRun, segments: Segments) -> tuple[str, int, float, float] | None:
    """Return the item during which for longest nothing else ran, once all workers were there."""
    if run.size == 1:
        return None
    runs = run.of_kind(RUN)
    there = float(runs["begin"].max(initial=0.0))
    working = segments.chosen(segments.what != IDLE)
    count = len(working.rank)
    times = np.concatenate((working.begin, working.end))
    steps = np.repeat((1, -1), count)
    names = np.concatenate((np.arange(count), -np.arange(count)))
    order = np.lexsort((steps, times))  # what ends goes before what begins
    running, sums = np.cumsum(steps[order]), np.cumsum(names[order])
    times = np.maximum(times[order], there)
    lasts = np.diff(times, append=times[-1:])
    alone = (running == 1) & (lasts > 0)
    places = working.place[sums[alone]]
    items = places >= 0
    places, lasts = places[items], lasts[alone][items]
    if not len(places):
        return None
    by_event = np.bincount(places, lasts, len(run.events))
    place = int(np.argmax(by_event))
    strip = run.events[place]
    name = run.functions[int(strip["function"])]
    each = float(strip["own"]) / max(1, int(strip["count"]))
    return name, int(strip["index"]), each, float(by_event[place])


def _pop(run: RecordedRun, figures: Figures, useful: NDArray[np.float64]) -> Pop:
    duration = max(figures.duration, 1e-9)
    most = max(float(useful.max(initial=0.0)), 1e-9)
    mean = max(float(useful.sum()) / run.size, 1e-9)
    communication = min(1.0, most / duration)
    place = int(np.argmax(useful)) if len(useful) else 0
    rank = run.ranks[place]
    rests = figures.resting.get(rank, 0.0)
    # What the busiest worker neither computed nor rested: messages, and dtm's own work.
    own_cost = max(0.0, duration - most - rests)
    transfer = max(min(1.0, (duration - own_cost) / duration), communication)
    return Pop(
        min(1.0, mean / duration), mean / most, communication, communication / transfer, transfer
    )


def _over_time(
    run: RecordedRun, segments: Segments
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, last = main_span(run)
    edges = np.linspace(first, max(last, first + 1e-9), BINS + 1)
    masks = (segments.what >= 0, segments.what == MAIN, segments.what == IDLE)
    rows = [_covered(segments.chosen(mask), edges) for mask in masks]
    return edges, np.array(rows) / (run.size * (edges[1] - edges[0]))


def _covered(segments: Segments, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each bin the seconds of it that segments cover, all together."""
    begins, ends = np.sort(segments.begin), np.sort(segments.end)
    before = _sum_before(begins, edges) - _sum_before(ends, edges)
    return np.diff(before)


def _sum_before(times: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each edge the sum of what it is later than each time that is before it."""
    sums = np.concatenate(([0.0], np.cumsum(times)))
    counts = np.searchsorted(times, edges)
    found: NDArray[np.float64] = counts * edges - sums[counts]
    return found


def _stolen(run: RecordedRun) -> NDArray[np.float64]:
    sends = run.of_kind(SEND)
    grants = sends[(sends["flag"] & ~np.uint8(IDLE_FLAG)) == run.message_names.index("Grant")]
    size = len(run.ranks)
    places = np.zeros(max(run.ranks) + 1, np.int64)
    places[run.ranks] = np.arange(size)
    known = np.isin(grants["peer"], run.ranks)
    grants = grants[known]
    stolen = np.zeros((size, size))
    np.add.at(stolen, (places[grants["rank"]], places[grants["peer"]]), grants["count"])
    return stolen


def histogram(
    findings: Findings, function: str, bins: int = 60
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many items of a function took how long: edges, evenly on a logarithm, and counts.

    Items of one strip count as if they had taken equally long.
    """
    run = findings.run
    strips = run.of_kind(STRIP)
    number = run.functions.index(function)
    strips = strips[(strips["function"] == number) & (strips["count"] > 0)]
    each = np.maximum(strips["own"] / strips["count"], 1e-9)
    low, high = np.log10(each.min()), np.log10(each.max())
    edges = np.logspace(low - 0.05, high + 0.05, bins + 1)
    counts, _ = np.histogram(each, edges, weights=strips["count"])
    return edges, counts
