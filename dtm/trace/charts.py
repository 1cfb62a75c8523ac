"""The charts of the report, as Plotly's figures.

A page with a million bars opens in no browser.  If there are more than ``MOST_BARS`` pieces, the
timeline shows for each worker and each of many short moments what took most of it, and joins
moments that are alike; what it leaves out stands in the file for Perfetto.

Threads: any.

Rejected: Bokeh (a page of 6 MB without its data, and a toolbar to learn), Vega-Altair (draws each
bar by itself: 20,000 of them take ten seconds), uPlot (50 KB and the fastest, but it has lines
only: timeline, matrix and hover would be our own code).  Plotly draws a worker's bars as one path.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtm.trace.findings import Findings, histogram
from dtm.trace.segments import IDLE, MAIN, Segments

if TYPE_CHECKING:
    from dtm.trace.prediction import Measured, Prediction

MOST_BARS = 6_000
MOST_FUNCTIONS = 8
MOST_HOVERS = 6_000
_COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99",
)  # fmt: skip
_OTHER, _MAIN, _IDLE = "#999988", "#8855dd", "rgba(128,128,128,0.28)"
_STOLEN = [[0, "rgba(68,119,170,0.06)"], [1, _COLOURS[0]]]
_REST = -3  # functions that have no colour of their own


def escape(text: str) -> str:
    """Return a text in which Plotly, which knows some tags and no quotes' names, finds no tag."""
    return html.escape(text, quote=False)


def by_seconds(findings: Findings) -> list[str]:
    """Return the names of the functions, those with the most own seconds first."""
    functions = findings.figures.functions
    return sorted(functions, key=lambda name: -functions[name].seconds)


def timeline(findings: Findings) -> tuple[dict[str, Any], str]:
    """Return what each worker did, above the efficiency over time, and a note on its grain."""
    segments, note = _bars(findings)
    run, duration = findings.run, findings.figures.duration
    start = findings.times[0]
    names = by_seconds(findings)[:MOST_FUNCTIONS]
    shown = [(run.functions.index(name), escape(name), _COLOURS[i]) for i, name in enumerate(names)]
    shown += [
        (_REST, "other functions", _OTHER), (MAIN, "main itself", _MAIN),
        (IDLE, "nothing to run", _IDLE),
    ]  # fmt: skip
    known = np.isin(segments.what, [number for number, *_ in shown])
    what = np.where(known, segments.what, _REST)
    width = float(np.clip(420 / run.size, 2.0, 16.0))
    hovers = len(what) <= MOST_HOVERS
    data = []
    for number, name, colour in shown:
        these = segments.chosen(what == number)
        if len(these.rank):
            data.append(_lane(these, start, name, colour, width))
            if hovers and number >= 0:
                data[-1]["text"] = _hovers(findings, these)
    data += _shares(findings)
    ticks = run.ranks if run.size <= 64 else run.ranks[:: -(-run.size // 32)]
    height = int(np.clip(run.size * 18, 120, 1400)) + 330
    layout = {
        "height": height,
        "xaxis": {"title": {"text": "seconds"}, "range": [0, duration], "anchor": "y2"},
        "yaxis": {
            "domain": [230 / height, 1], "range": [run.size - 0.5, -0.5], "tickvals": ticks,
            "ticktext": [escape(f"{rank} {run.hosts[rank]}") for rank in ticks], "zeroline": False,
        },
        "yaxis2": {"domain": [0, 150 / height], "range": [0, 1], "tickformat": ".0%"},
        "legend": {"orientation": "h", "y": 1.04, "yanchor": "bottom"},
        "hovermode": "closest",
    }  # fmt: skip
    return {"data": data, "layout": layout}, note


def _lane(these: Segments, start: float, name: str, colour: str, width: float) -> dict[str, Any]:
    count = len(these.rank)
    x = np.full((count, 3), np.nan)
    x[:, 0], x[:, 1] = these.begin - start, these.end - start
    return {
        "type": "scatter", "mode": "lines", "name": name, "legendgroup": name,
        "x": x.ravel(), "y": np.repeat(these.rank.astype(np.int32), 3),
        "line": {"color": colour, "width": width}, "hoverinfo": "name+x+text",
    }  # fmt: skip


def _hovers(findings: Findings, these: Segments) -> list[str]:
    strips = findings.run.events[these.place]
    said = [
        f"items {first} to {first + count - 1}" if count > 1 else f"item {first}"
        for first, count in zip(strips["index"].tolist(), strips["count"].tolist(), strict=True)
    ]
    return [text for each in said for text in (each, each, "")]


def _shares(findings: Findings) -> list[dict[str, Any]]:
    times = (findings.times[1:] + findings.times[:-1]) / 2 - findings.times[0]
    kinds = (("items", _COLOURS[0]), ("main itself", _MAIN), ("nothing to run", _IDLE))
    return [
        {
            "type": "scatter", "x": times, "y": share, "name": f"share: {name}", "yaxis": "y2",
            "stackgroup": "share", "line": {"width": 0, "color": colour}, "showlegend": False,
            "hovertemplate": "%{y:.0%} " + name,
        }
        for (name, colour), share in zip(kinds, findings.shares, strict=True)
    ]  # fmt: skip


def _bars(findings: Findings) -> tuple[Segments, str]:
    segments = findings.segments
    if len(segments.rank) <= MOST_BARS:
        return segments, ""
    cells = min(20_000, 400_000 // findings.run.size)
    coarse = _coarse(findings, cells)
    while len(coarse.rank) > MOST_BARS and cells > 100:
        cells //= 2
        coarse = _coarse(findings, cells)
    grain = findings.figures.duration / cells
    return coarse, (
        f"{len(segments.rank):,} pieces are too many to draw: the timeline shows what took most of "
        f"each {grain * 1e3:.3g} ms. dtm trace export writes all of them for Perfetto."
    )


def _coarse(findings: Findings, cells: int) -> Segments:
    """Return for each worker and cell what took most of it, equal neighbours joined."""
    segments = findings.segments
    first, last = float(findings.times[0]), float(findings.times[-1])
    edges = np.linspace(first, last, cells + 1)
    kinds, number = np.unique(segments.what, return_inverse=True)
    found = []
    for rank in findings.run.ranks:
        low, high = np.searchsorted(segments.rank, (rank, rank + 1)).tolist()
        seconds = _seconds_by_cell(segments, number, (low, high), edges, len(kinds))
        most = np.argmax(seconds, axis=0)
        empty = seconds.max(axis=0) <= 0
        most[empty] = -1
        changes = np.flatnonzero(np.diff(most)) + 1
        begins, ends = np.concatenate(([0], changes)), np.concatenate((changes, [cells]))
        kept = most[begins] >= 0
        begins, ends = begins[kept], ends[kept]
        found.append((np.full(len(begins), rank), edges[begins], edges[ends], kinds[most[begins]]))
    ranks, begins, ends, whats = (np.concatenate(each) for each in zip(*found, strict=True))
    return Segments(ranks, begins, ends, whats, np.full(len(ranks), -1))


def _seconds_by_cell(
    segments: Segments,
    number: NDArray[np.int64],
    bounds: tuple[int, int],
    edges: NDArray[np.float64],
    kinds: int,
) -> NDArray[np.float64]:
    """Return how long each kind took in each cell, for the segments of one worker."""
    low, high = bounds
    cells, width = len(edges) - 1, edges[1] - edges[0]
    begin, end = segments.begin[low:high] - edges[0], segments.end[low:high] - edges[0]
    kind = number[low:high]
    first = np.clip((begin / width).astype(np.int64), 0, cells - 1)
    last = np.clip((end / width).astype(np.int64), 0, cells - 1)
    found = np.zeros((kinds, cells))
    inside = first == last
    np.add.at(found, (kind[inside], first[inside]), (end - begin)[inside])
    across = ~inside
    at = kind[across]
    np.add.at(found, (at, first[across]), (first[across] + 1) * width - begin[across])
    np.add.at(found, (at, last[across]), end[across] - last[across] * width)
    whole = np.zeros((kinds, cells + 1))
    np.add.at(whole, (at, first[across] + 1), width)
    np.add.at(whole, (at, last[across]), -width)
    found += np.cumsum(whole, axis=1)[:, :-1]
    return found


def lengths(findings: Findings) -> dict[str, Any]:
    """Return how long the items of each function took."""
    data = []
    for place, name in enumerate(by_seconds(findings)[:MOST_FUNCTIONS]):
        edges, counts = histogram(findings, name)
        middle = np.sqrt(edges[1:] * edges[:-1])
        data.append(
            {
                "type": "scatter", "mode": "lines", "x": middle, "y": counts, "name": escape(name),
                "line": {"shape": "hvh", "color": _COLOURS[place]}, "fill": "tozeroy",
            }
        )  # fmt: skip
    layout = {
        "height": 340, "xaxis": {"type": "log", "title": {"text": "seconds an item"}},
        "yaxis": {"title": {"text": "items"}}, "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def steals(findings: Findings) -> dict[str, Any]:
    """Return who stole how many items from whom."""
    ranks = [str(rank) for rank in findings.run.ranks]
    heat = {
        "type": "heatmap", "z": findings.stolen, "x": ranks, "y": ranks, "colorscale": _STOLEN,
        "hovertemplate": "%{z:.0f} items from worker %{y} to worker %{x}<extra></extra>",
    }  # fmt: skip
    size = int(np.clip(len(ranks) * 16, 260, 640))
    layout = {
        "height": size + 60, "width": size + 160,
        "xaxis": {"title": {"text": "thief"}, "type": "category"},
        "yaxis": {"title": {"text": "victim"}, "autorange": "reversed", "type": "category"},
    }  # fmt: skip
    return {"data": [heat], "layout": layout}


def core_seconds(findings: Findings) -> dict[str, Any]:
    """Return where the core-seconds went, as one bar."""
    data = [
        {
            "type": "bar", "orientation": "h", "y": ["core time"], "x": [share], "name": name,
            "marker": {"color": colour}, "hovertemplate": "%{x:.1%} " + name + "<extra></extra>",
        }
        for (name, share, _), colour in zip(where_it_went(findings), _PLACES, strict=True)
    ]  # fmt: skip
    layout = {
        "height": 150, "barmode": "stack", "xaxis": {"tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"showticklabels": False}, "showlegend": True,
        "legend": {"orientation": "h", "y": 1.1, "yanchor": "bottom", "traceorder": "normal"},
    }  # fmt: skip
    return {"data": data, "layout": layout}


_PLACES = ("#228833", "#8855dd", "#ccbb44", "#ee6677", "#66ccee", "#ee8866", "#999988")


def where_it_went(findings: Findings) -> list[tuple[str, float, str]]:
    """Return the ways that core-seconds went: name, share of all, and what that means."""
    figures = findings.figures
    parts = [
        ("items", sum(figures.busy.values()),
         "User work: the bodies of tasks ran. This is what a run is for."),
        ("main itself", figures.serial,
         "The serial part of the root: main computed, and waited for no call of dtm."),
        ("waiting for main", figures.idle_while_serial,
         ("Workers had nothing to run while main computed by itself. Bounded by the time that "
         "all other workers rested.")),
        ("imbalance and waiting", figures.idle_otherwise,
         ("Workers had nothing to run for other reasons: the ends of calls do not meet, one item "
         "is longer than the others, there are too few items, or results were on their way.")),
        ("pickling and transfer", figures.pickling,
         ("Messages were made, handed to the communication manager, and read. What the network "
         "takes while workers go on is hidden, and not counted.")),
        ("starting", figures.starting,
         ("Main had begun and a worker was not there yet: its process started, and the program was "
         "imported.")),
        ("dtm's own", figures.overhead,
         ("Granularity: the time between strips of items, looking at the inbox, putting results "
         "together, and all else that nothing above explains, such as other programs on a core.")),
    ]  # fmt: skip
    return [(name, value / figures.capacity, said) for name, value, said in parts]


def speed_up(predictions: Sequence[Prediction], measured: Measured) -> dict[str, Any]:
    """Return how much faster than the recorded run others would be."""
    workers = [each.workers for each in predictions]
    gains = [measured.seconds / max(each.seconds, 1e-12) for each in predictions]
    ideal = [each / measured.workers for each in workers]
    data = [
        {"type": "scatter", "mode": "lines+markers", "x": workers, "y": gains,
         "name": "predicted", "line": {"color": _COLOURS[0]}},
        {"type": "scatter", "mode": "lines", "x": workers, "y": ideal, "name": "ideal",
         "line": {"color": _OTHER, "dash": "dot"}},
        {"type": "scatter", "mode": "markers", "x": [measured.workers], "y": [1.0],
         "name": "recorded", "marker": {"color": _COLOURS[1], "size": 11, "symbol": "x"}},
    ]  # fmt: skip
    layout = {
        "height": 420, "xaxis": {"type": "log", "title": {"text": "workers"}, "tickvals": workers},
        "yaxis": {"type": "log", "title": {"text": "times as fast"}},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def efficiency(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the predicted efficiencies."""
    workers = [each.workers for each in predictions]
    line = {
        "type": "scatter", "mode": "lines+markers", "x": workers,
        "y": [each.efficiency for each in predictions], "line": {"color": _COLOURS[0]},
    }  # fmt: skip
    layout = {
        "height": 320, "xaxis": {"type": "log", "title": {"text": "workers"}, "tickvals": workers},
        "yaxis": {"range": [0, 1.05], "tickformat": ".0%"},
    }  # fmt: skip
    return {"data": [line], "layout": layout}
