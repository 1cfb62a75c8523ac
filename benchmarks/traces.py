"""Long traces, written event by event."""

from __future__ import annotations

from random import Random

from dtm.core.messages import MESSAGES, Grant
from dtm.run.recording import CALL, KEY, PART, RECEIVE, REST, SEND, STRIP, WAIT, Recorder

FUNCTIONS = ("map(evaluate)", "map(mutate)", "map(select)")
SECONDS = 1e-3
MESSAGE_SECONDS = 1e-5
GAP_SECONDS = 3e-6
WORKERS_OF_A_HOST = 8


def write_trace(directory: str, workers: int, events: int, seed: int = 1) -> int:
    """Write the trace of a run; return how many events it has, a few more than asked for.

    Every 16th event is a grant that goes to the next worker, every 16th one that came from the
    worker before, every 8th a rest, and the others are strips.
    """
    each = -(-events // workers // 16) * 16
    random = Random(seed)
    lengths = [random.expovariate(1.0 / SECONDS) for _ in range(each)]
    grant = MESSAGES.index(Grant)
    written = 0
    for rank in range(workers):
        recorder = Recorder(directory, rank, workers, f"node{rank // WORKERS_OF_A_HOST}")
        for number, name in enumerate(FUNCTIONS, 1):
            function = recorder.function(name)
            recorder.record(CALL, 0.0, each, 0, 0, number, 0, function)
        record, now = recorder.record, 0.0
        after, before = (rank + 1) % workers, (rank - 1) % workers
        for place, length in enumerate(lengths[rank:] + lengths[:rank]):
            what = place % 16
            if what == 7:
                record(SEND, now, now + MESSAGE_SECONDS, 0.0, 100, 0, 3, after, grant)
            elif what == 8:
                record(RECEIVE, now, now + MESSAGE_SECONDS, 0.0, 100, 0, 3, before, grant)
            elif what in {3, 11}:
                record(REST, now, now + length, flag=1)
            else:
                record(STRIP, now, now + length, length, place, 1 + place % 3, 1)
            now += length
        if rank == 0:
            record(WAIT, 0.0, now)
        recorder.began, recorder.ended = 0.0, now
        recorder.close()
        written += each + len(FUNCTIONS) + 1 + (rank == 0)
    return written


def write_map(directory: str, workers: int, items: int, seconds: float, seed: int = 1) -> None:
    """Write the trace of one map whose items are exponential, shared evenly by the workers."""
    random = Random(seed)
    recorders = [Recorder(directory, rank, workers, "node0") for rank in range(workers)]
    ends = []
    for rank, recorder in enumerate(recorders):
        function = recorder.function(FUNCTIONS[0])
        if rank:
            recorder.record(PART, 0.0, 1, 0, function, 1, items, 0)
        else:
            recorder.record(CALL, 0.0, items, 0, 0, 1, 0, function)
            recorder.record(KEY, 0.0, 1, number=1)
        now = 0.0
        for index in range(items * rank // workers, items * (rank + 1) // workers):
            length = random.expovariate(1.0 / seconds)
            recorder.record(STRIP, now, now + length, length, index, 1, 1)
            now += length + GAP_SECONDS
        ends.append(now)
    last = max(ends)
    recorders[0].record(WAIT, 0.0, last)
    for recorder, end in zip(recorders, ends, strict=True):
        recorder.record(REST, end, last)
        recorder.began, recorder.ended = 0.0, last
        recorder.close()
