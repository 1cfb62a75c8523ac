"""A recorded run in Perfetto's format, for ui.perfetto.dev and its trace processor.

A worker is a process with tracks of its own, in the order of the ranks; a message is a flow from
where it left to where it came.

What can go wrong: the package ``perfetto``, which has the definitions of the format, is not there.

Threads: any.

Rejected: writing protocol buffers by hand.  The format is Perfetto's and grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import IO, Any

from dtm.errors import TraceError
from dtm.trace.files import INSTANTS
from dtm.trace.lanes import KIND_NAMES, Shown, shown_events, track_name
from dtm.trace.recorded import RecordedRun

_SEQUENCE = 1
_TRACKS_A_WORKER = 1 << 20


def write_perfetto(run: RecordedRun, file: IO[bytes]) -> None:
    """Write a run."""
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as definitions
    except ImportError:
        raise TraceError("the format perfetto needs: pip install 'dtm[report]'") from None
    trace = definitions.Trace()
    for packet in _packets(run, definitions):
        trace.packet.append(packet)
        if len(trace.packet) >= 4096:
            file.write(trace.SerializeToString())
            trace.Clear()
    file.write(trace.SerializeToString())


def track_id(rank: int, track: int | None = None) -> int:
    """Return the number of a worker's track in the file; that of the worker itself if None."""
    return (rank + 1) * _TRACKS_A_WORKER + (0 if track is None else track + 1)


def _packets(run: RecordedRun, definitions: Any) -> Iterator[Any]:
    for rank in run.ranks:
        packet = definitions.TracePacket()
        whole = packet.track_descriptor
        whole.uuid = track_id(rank)
        whole.process.pid = rank + 1
        whole.process.process_name = run.called(rank)
        whole.child_ordering = whole.EXPLICIT
        whole.sibling_order_rank = rank
        yield packet
    for (rank, track), shown in groupby(shown_events(run), lambda each: (each.rank, each.track)):
        packet = definitions.TracePacket()
        own = packet.track_descriptor
        own.uuid, own.parent_uuid = track_id(rank, track), track_id(rank)
        own.name, own.sibling_order_rank = track_name(track), track
        yield packet
        yield from _of_track(shown, definitions)


def _of_track(shown: Iterator[Shown], definitions: Any) -> Iterator[Any]:
    """Yield the packets of one track: each span's beginning and end, in order."""
    under_way: list[Shown] = []
    for event in shown:
        while under_way and under_way[-1].end <= event.begin:
            yield _end(under_way.pop(), definitions)
        yield _begin(event, definitions)
        if event.kind not in INSTANTS:
            under_way.append(event)
    while under_way:
        yield _end(under_way.pop(), definitions)


def _begin(event: Shown, definitions: Any) -> Any:
    packet = definitions.TracePacket()
    packet.timestamp = event.begin
    packet.trusted_packet_sequence_id = _SEQUENCE
    begun = packet.track_event
    begun.type = begun.TYPE_INSTANT if event.kind in INSTANTS else begun.TYPE_SLICE_BEGIN
    begun.track_uuid = track_id(event.rank, event.track)
    begun.name = event.label
    begun.categories.append(KIND_NAMES[event.kind])
    if event.flow_out:
        begun.flow_ids.append(event.flow_out)
    if event.flow_in:
        begun.terminating_flow_ids.append(event.flow_in)
    for name, value in event.details.items():
        note = begun.debug_annotations.add()
        note.name = name
        if isinstance(value, bool):
            note.bool_value = value
        elif isinstance(value, int):
            note.int_value = value
        else:
            note.double_value = value
    return packet


def _end(event: Shown, definitions: Any) -> Any:
    packet = definitions.TracePacket()
    packet.timestamp = event.end
    packet.trusted_packet_sequence_id = _SEQUENCE
    packet.track_event.type = packet.track_event.TYPE_SLICE_END
    packet.track_event.track_uuid = track_id(event.rank, event.track)
    return packet
