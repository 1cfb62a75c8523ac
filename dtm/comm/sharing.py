"""Large frames between workers of one machine: through shared memory, under any manager.

``Sharing`` stands between a worker and its manager and is a manager itself.  To a worker that
can map this one's memory, a frame of ``LARGE`` bytes or more is written to a segment
(:mod:`dtm.comm.segments`), and where it lies is sent instead.  The receiver maps it: one copy in,
none out.  The mapping is private to the receiver and writable, so a task may change an array in
place as if the array had come by a socket; the kernel copies a page when it is first written to.

A frame *object* that is sent to several workers (a function with its data) is written once.

A segment's life, as its writer sees it:

=========== ======================================== ==========================================
state       begins when                              what can go wrong then
=========== ======================================== ==========================================
written     its bytes are in memory                  no memory, no descriptor: the frame goes
                                                     as it is
announced   a *ticket* for it has gone to a reader   the reader cannot open it: it refuses, and
                                                     gets the bytes by the manager
mapped      the reader says so                       none: the memory lives with the mapping, so
                                                     the writer may close it, or die
released    the reader says so: its last view died   a child that the reader has forked may still
                                                     see it: then it is never written again
idle        all tickets are released, and the        more is idle than may be: it is closed
            frame's object is gone
=========== ======================================== ==========================================

Who is on the same machine is tried, not guessed: with its first message to a worker each one sends
its *card*; who can open what the card names says so, and only then comes the first segment.  (Names
of hosts are equal in containers that share nothing, and differ in such as share all.)

A reader that refuses holds back what comes after that message until the bytes have come, so
messages stay in order.  From then on nothing is shared with it.  Who closes sends the bytes of
whatever it does not know to be mapped, for its memory goes with it.

What is said about segments goes along with the next message to the same worker, or by itself when
much is owed or a moment has passed.  On the wire a message that begins with an empty frame has a
list of such *notices* in its second one; a user's message that begins with an empty frame gets
an empty list.  Others go as they are and cost nothing.

Threads: as the interface says; views die in any thread, and do no more then than to append to
``_events``.

Rejected: mappings that share what is written (a forked child of the reader would see it, and be
seen); read-only ones (tasks change arrays in place, and could under every manager so far); one
segment for all the frames of a message (one array that is kept would hold the memory of all).
"""

from __future__ import annotations

import os
import pickle
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from mmap import mmap
from time import monotonic
from typing import Any, Final

from dtm.comm import segments
from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.comm.forked import Forkable
from dtm.comm.segments import Card, Segment, Segments

LARGE: Final = 1 << 19
"""Frames of so many bytes or more go through shared memory: below, page faults cost more."""

IDLE_BYTES: Final = 64 << 20

_OWED_NOTICES = 16
_OWED_BYTES = 4 << 20
_OWED_SECONDS = 0.02

_CARD, _NEAR, _MAPPED, _RELEASED, _SEEN, _REFUSED, _AGAIN, _PLACES = range(8)

Notice = tuple[int, Any]
Place = tuple[int, int, int, int, int]  # index of the frame, ticket, descriptor, number, size
Received = list[tuple[int, list[Frame]]]

_every: weakref.WeakSet[Sharing] = weakref.WeakSet()


def _size(frame: Frame) -> int:
    return len(frame) if isinstance(frame, (bytes, bytearray)) else memoryview(frame).nbytes


def _all_small(frames: Sequence[Frame], large: int) -> bool:
    """Whether all are bytes, and fewer than so many each, as in nearly all messages."""
    for frame in frames:  # noqa: SIM110 - a generator would cost more than all else here
        if type(frame) is not bytes or len(frame) >= large:
            return False
    return True


class _Peer:
    """What is known of another worker.

    Attributes:
        met: whether it has this worker's card.
        near: whether it can map this worker's segments.
        card: its own.
        tickets: the segments that it reads.
        read: the last of its tickets that was used here.
        held: its messages behind one whose segment could not be opened; None if there is none.
        resent: bytes that it has sent instead of segments, by tickets.
        notices: what it is to be told.
        owed: the bytes that these are about.
        since: when the first of them was noted.
    """

    def __init__(self) -> None:
        self.met = self.near = False
        self.card: Card | None = None
        self.tickets: dict[int, Segment] = {}
        self.read = 0
        self.held: deque[tuple[list[Place], list[Frame]]] | None = None
        self.resent: dict[int, Frame] = {}
        self.notices: list[Notice] = []
        self.owed = 0
        self.since = 0.0


class Sharing(Forkable):
    """A manager with shared memory between those of its workers that can have it.

    Args:
        manager: carries all else.
        idle_bytes: how much memory is kept, once written, for segments to come.
        large: the bytes from which on a frame goes through shared memory.
    """

    def __init__(
        self, manager: CommunicationManager, idle_bytes: int = IDLE_BYTES, large: int = LARGE
    ) -> None:
        super().__init__()
        self._manager = manager
        self._large = large
        self.rank, self.size, self.hosts = manager.rank, manager.size, manager.hosts
        self.carries_output = manager.carries_output
        self.ways_may_break = manager.ways_may_break
        self.alters_threads = manager.alters_threads
        self._segments = Segments(idle_bytes)
        self._most_mapped = segments.bounded(segments.MOST_MAPPED)
        self._peers: dict[int, _Peer] = {}
        self._owing: set[int] = set()
        self._tickets = 0
        self._sources: dict[int, tuple[weakref.ref[memoryview], Segment]] = {}
        self._views: dict[tuple[int, int], tuple[weakref.ref[Any], int]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._events: deque[tuple[int, int]] = deque()
        _every.add(self)

    # Sending.

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """See :meth:`CommunicationManager.send`."""
        if self._events:
            self._collect()
        peer = self._peers.get(rank)
        if peer is None:
            peer = _Peer()
        rest = frames
        if peer.near and not _all_small(frames, self._large):
            places, rest = self._placed(rank, peer, frames)
            if places:
                peer.notices.append((_PLACES, places))
        if peer.notices or not peer.met:
            self._post(rank, peer, rest)
        elif _size(frames[0]):
            self._manager.send(rank, frames)
        else:
            self._manager.send(rank, [b"", b"", *frames])

    def _post(self, rank: int, peer: _Peer, frames: Iterable[Frame] = ()) -> None:
        notices = peer.notices
        if not peer.met:
            notices = [(_CARD, self._segments.card), *notices]
        self._manager.send(rank, [b"", pickle.dumps(notices, 5), *frames])
        self._peers[rank] = peer
        peer.met, peer.notices, peer.owed = True, [], 0
        self._owing.discard(rank)

    def _placed(
        self, rank: int, peer: _Peer, frames: Sequence[Frame]
    ) -> tuple[list[Place], Sequence[Frame]]:
        """Write the large frames; return where they lie, and the others."""
        large = [_size(frame) >= self._large for frame in frames]
        if not any(large) or rank in self._manager.absent():
            return [], frames
        places: list[Place] = []
        rest: list[Frame] = []
        for index, frame in enumerate(frames):
            segment = self._written(frame) if large[index] else None
            if segment is None:
                rest.append(frame)
                continue
            self._tickets += 1
            segment.lent[self._tickets] = False
            peer.tickets[self._tickets] = segment
            places.append((index, self._tickets, segment.descriptor, segment.number, segment.size))
        return places, rest

    def _written(self, frame: Frame) -> Segment | None:
        known = self._sources.get(id(frame))
        if known is not None:
            return known[1]
        view = memoryview(frame)
        segment = self._segments.written(view.cast("B"))
        if segment is not None and isinstance(frame, memoryview):
            event = (-1, id(frame))
            self._sources[id(frame)] = weakref.ref(frame, self._note(event)), segment
            segment.kept = True
        return segment

    def _note(self, event: tuple[int, int]) -> Any:
        events = self._events
        return lambda _: events.append(event)

    def _collect(self) -> None:
        """Take note of what has died: frames that were sent, and views of others' segments."""
        while self._events:
            source, number = self._events.popleft()
            if source < 0:
                _, segment = self._sources.pop(number)
                segment.kept = False
                self._settle(segment)
                continue
            _, size = self._views.pop((source, number))
            seen = (source, number) in self._seen
            self._seen.discard((source, number))
            self._owe(source, _SEEN if seen else _RELEASED, number, size)

    def _settle(self, segment: Segment) -> None:
        if not segment.lent and not segment.kept:
            if segment.reusable:
                self._segments.free(segment)
            else:
                self._segments.drop(segment)

    def _returned(self, peer: _Peer, ticket: int, *, reusable: bool) -> None:
        segment = peer.tickets.pop(ticket, None)
        if segment is not None:
            del segment.lent[ticket]
            segment.reusable &= reusable
            self._settle(segment)

    def _owe(self, rank: int, kind: int, what: Any, size: int) -> None:
        peer = self._peers[rank]
        if not peer.notices:
            peer.since = monotonic()
        peer.notices.append((kind, what))
        peer.owed += size
        self._owing.add(rank)

    def _resend(self, rank: int, peer: _Peer) -> None:
        """Send the bytes of all that the peer is not known to have mapped."""
        late = [
            (ticket, segment)
            for ticket, segment in peer.tickets.items()
            if not segment.lent[ticket]
        ]
        if not late:
            return
        contents = [segment.content() for _, segment in late]
        for ticket, _ in late:
            self._returned(peer, ticket, reusable=False)
        peer.notices.append((_AGAIN, [ticket for ticket, _ in late]))
        self._post(rank, peer, contents)

    # Receiving.

    def receive(self) -> Received:
        """See :meth:`CommunicationManager.receive`."""
        came: Received = []
        for source, frames in self._manager.receive():
            peer = self._peers.get(source)
            if not _size(frames[0]):
                if peer is None:
                    peer = self._peers[source] = _Peer()
                self._unwrap(source, peer, frames, came)
            elif peer is None or peer.held is None:
                came.append((source, frames))
            else:
                peer.held.append(([], frames))
        if self._events:
            self._collect()
        if self._owing:
            self._tell()
        return came

    def _tell(self) -> None:
        """Send the notices that are due and went along with nothing."""
        now = monotonic()
        for rank in tuple(self._owing):
            peer = self._peers[rank]
            if (
                len(peer.notices) >= _OWED_NOTICES
                or peer.owed >= _OWED_BYTES
                or now - peer.since >= _OWED_SECONDS
            ):
                self._post(rank, peer)

    def _unwrap(self, source: int, peer: _Peer, frames: list[Frame], came: Received) -> None:
        places: list[Place] = []
        rest = frames[2:]
        for kind, what in pickle.loads(frames[1]) if _size(frames[1]) else ():
            if kind == _PLACES:
                places = what
            elif kind == _AGAIN:
                peer.resent.update(
                    (ticket, frame)
                    for ticket, frame in zip(what, rest, strict=True)
                    if ticket > peer.read
                )
                rest = []
                self._go_on(source, peer, came)
            else:
                self._hear(source, peer, kind, what)
        if not rest and not places:
            return
        if peer.held is not None:
            peer.held.append((places, rest))
        elif not self._deliver(source, peer, places, rest, came):
            peer.held = deque([(places, rest)])
            peer.notices.append((_REFUSED, None))
            self._post(source, peer)

    def _hear(self, source: int, peer: _Peer, kind: int, what: Any) -> None:
        if kind == _CARD:
            peer.card = what
            probe = segments.opened(what)
            if probe is not None:
                os.close(probe)
                peer.notices.append((_NEAR, None))
                self._post(source, peer)
        elif kind == _NEAR:
            peer.near = True
            self._count()
        elif kind == _MAPPED:
            if what in peer.tickets:
                peer.tickets[what].lent[what] = True
        elif kind == _REFUSED:
            peer.near = False
            self._count()
            self._resend(source, peer)
        else:
            self._returned(peer, what, reusable=kind == _RELEASED)

    def _count(self) -> None:
        near = sum(peer.near for peer in self._peers.values())
        self.shares_memory = near == self.size - 1

    def _go_on(self, source: int, peer: _Peer, came: Received) -> None:
        """Deliver what was held back, as far as it can be read."""
        held = peer.held
        while held and self._deliver(source, peer, *held[0], came):
            held.popleft()
        if not held:
            peer.held = None
            peer.resent.clear()

    def _deliver(
        self,
        source: int,
        peer: _Peer,
        places: list[Place],
        rest: list[Frame],
        came: Received,
    ) -> bool:
        """Put a message together; False if that cannot be done, and then nothing has changed."""
        found: list[tuple[Frame, mmap | None]] = []
        for place in places:
            one = self._look(peer, place)
            if one is None:
                return False
            found.append(one)
        frames = list(rest)
        for (index, ticket, _, _, size), (frame, area) in zip(places, found, strict=True):
            frames.insert(index, frame)
            if peer.resent.pop(ticket, None) is not None:
                continue
            if area is None:
                self._owe(source, _RELEASED, ticket, size)
            else:
                self._owe(source, _MAPPED, ticket, size)
                key = source, ticket
                self._views[key] = weakref.ref(area, self._note(key)), size
        if places:
            peer.read = places[-1][1]
        came.append((source, frames))
        return True

    def _look(self, peer: _Peer, place: Place) -> tuple[Frame, mmap | None] | None:
        """Return a frame, and the mapping if it lies in one; None if its bytes must come."""
        _, ticket, descriptor, number, size = place
        resent = peer.resent.get(ticket)
        if resent is not None:
            return resent, None
        opened = None
        if peer.card is not None:
            opened = segments.opened(peer.card, descriptor, number)
        if opened is None:
            return None
        try:
            area = None
            if len(self._views) < self._most_mapped:
                area = segments.mapped(opened, size)
            if area is not None:
                return memoryview(area), area
            copy = segments.read(opened, size)
            return None if copy is None else (copy, None)
        finally:
            os.close(opened)

    # What goes to the manager as it is.

    def wait(self, timeout: float) -> None:
        """See :meth:`CommunicationManager.wait`."""
        self._manager.wait(timeout)

    def stand_by(self, timeout: float) -> bool:
        """See :meth:`CommunicationManager.stand_by`."""
        return self._manager.stand_by(timeout)

    def alert(self, on: bool) -> bool:
        """See :meth:`CommunicationManager.alert`."""
        return self._manager.alert(on)

    def wake(self) -> None:
        """See :meth:`CommunicationManager.wake`."""
        self._manager.wake()

    def absent(self) -> Collection[int]:
        """See :meth:`CommunicationManager.absent`."""
        return self._manager.absent()

    # The end, of others and of this worker.

    def lost(self) -> list[LostPeer]:
        """See :meth:`CommunicationManager.lost`."""
        news = self._manager.lost()
        for rank, _ in news:
            peer = self._peers.get(rank)
            if peer is not None:
                peer.near = False
                for ticket in tuple(peer.tickets):
                    self._returned(peer, ticket, reusable=False)
        return news

    def close(self, timeout: float) -> None:
        """See :meth:`CommunicationManager.close`."""
        self._collect()
        gone = self._manager.absent()
        for rank, peer in self._peers.items():
            if rank not in gone:
                self._resend(rank, peer)
        self._manager.close(timeout)
        self._segments.close()

    def forking(self) -> None:
        """A child has been forked: what is mapped now is never to be written again."""
        self._seen |= set(self._views)

    def _close_copies(self) -> None:
        self._segments.close()


def shared(manager: CommunicationManager, idle_bytes: int = IDLE_BYTES) -> CommunicationManager:
    """Return a manager whose large frames go through shared memory where that can be done."""
    if manager.size == 1 or not segments.available():
        return manager
    try:
        return Sharing(manager, idle_bytes)
    except OSError:  # a sandbox that has the call and forbids it, or no descriptor is left
        return manager


def _note_fork() -> None:
    for sharing in tuple(_every):
        sharing.forking()


os.register_at_fork(after_in_parent=_note_fork)
