"""What a recorded run would take on more workers: its tree of tasks in the simulator.

The simulator runs the production scheduler and balancer in virtual time.  Durations of items, the
cost of messages and the time between items are those of the recorded run; so a prediction for as
many workers as were recorded can be held against what was measured, and is, in every table.

What a prediction does not know: that items may take longer when more workers share memory, caches
or files; how long the workers take to start; networks slower than the recorded one.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtm.run.recording import RECEIVE, REST, RUN, SEND, STRIP
from dtm.testing import Network, Simulation
from dtm.trace.recorded import RecordedRun
from dtm.trace.segments import cut, main_span
from dtm.trace.tree import program_of

MOST_GAP_SECONDS = 1e-3
_USUAL = Network()


class Prediction(NamedTuple):
    """What is predicted for a number of workers.

    Attributes:
        workers: how many.
        seconds: of ``main``.
        efficiency: the part of the core-seconds in which user code runs.
    """

    workers: int
    seconds: float
    efficiency: float


class Measured(NamedTuple):
    """What the recorded run took.

    Attributes:
        workers: how many there were.
        seconds: of ``main``, without what the late start of workers cost.
        starting: what that cost.
    """

    workers: int
    seconds: float
    starting: float


def predict(run: RecordedRun, workers: Sequence[int]) -> Iterator[Prediction]:
    """Yield what is predicted for numbers of workers, one after the other.

    Raises:
        TraceError: there is nothing to predict from.
    """
    segments = cut(run)
    program = program_of(run, segments, between_items(run))
    network = network_of(run)
    work = float(segments.seconds[segments.what != -1].sum())
    for count in workers:
        report = Simulation(count, program, network=network, check=False).run()
        seconds = report.makespan
        yield Prediction(count, seconds, min(1.0, work / max(count * seconds, 1e-12)))


def measured(run: RecordedRun) -> Measured:
    """Return what the recorded run took."""
    first, last = main_span(run)
    runs = run.of_kind(RUN)
    late = np.maximum(0.0, np.minimum(runs["begin"], last) - first).sum() / run.size
    return Measured(run.size, last - first - float(late), float(late))


def between_items(run: RecordedRun) -> float:
    """Return the seconds between one strip and the next that nothing explains but dtm's work."""
    strips = run.of_kind(STRIP)
    strips = strips[np.lexsort((strips["begin"], strips["number"], strips["peer"], strips["rank"]))]
    same = np.ones(max(0, len(strips) - 1), bool)
    for name in ("rank", "peer", "number"):
        same &= strips[name][1:] == strips[name][:-1]
    same &= strips["index"][1:].astype(np.int64) == (
        strips["index"][:-1].astype(np.int64) + strips["count"][:-1]
    )
    gaps = (strips["begin"][1:] - strips["end"][:-1])[same]
    gaps = gaps[(gaps >= 0) & (gaps < MOST_GAP_SECONDS)]
    if not len(gaps):
        return 0.0
    items = strips["count"][:-1][same].mean()
    return float(np.median(gaps) / max(1.0, float(items)))


def network_of(run: RecordedRun) -> Network:
    """Return what messages cost in the recorded run, the usual where none tells."""
    events, messages = run.events, run.messages
    if not len(messages.sent):
        return _USUAL
    took = events["begin"][messages.came] - events["end"][messages.sent]
    hosts = np.array([run.hosts.get(rank, "") for rank in range(max(run.ranks) + 1)])
    near = hosts[messages.source] == hosts[messages.target]
    ends = run.of_kind(SEND, RECEIVE)
    cpu = float(np.median(ends["end"] - ends["begin"])) + _USUAL.cpu
    far = _fast(took[~near], _USUAL.far)
    most = max(list(run.hosts.values()).count(host) for host in set(run.hosts.values()))
    host = most if len(set(run.hosts.values())) > 1 else _USUAL.host
    close = _fast(took[near], _USUAL.near)
    late = (took - np.where(near, close, far))[_to_sleepers(run)]
    wake = max(0.0, float(np.median(late))) if len(late) else _USUAL.wake
    return Network(host=host, near=close, middle=far, far=far, cpu=cpu, wake=wake)


def _to_sleepers(run: RecordedRun) -> NDArray[np.bool_]:
    """Return which messages came to workers that had nothing to run when they were sent."""
    sent, target = run.events["end"][run.messages.sent], run.messages.target
    found = np.zeros(len(sent), bool)
    rests = run.of_kind(REST)
    for rank in run.ranks:
        own = rests[rests["rank"] == rank]
        own = own[np.argsort(own["begin"])]
        these = np.flatnonzero(target == rank)
        before = np.searchsorted(own["begin"], sent[these], side="right") - 1
        known = before >= 0
        found[these[known]] = own["end"][before[known]] >= sent[these[known]]
    return found


def _fast(took: NDArray[np.float64], usual: float) -> float:
    """Return what a message takes whose receiver is not busy."""
    took = took[took > 0]
    return float(np.quantile(took, 0.1)) if len(took) else usual
