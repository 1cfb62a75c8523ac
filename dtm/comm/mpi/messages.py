"""Messages of frames, sent and received as MPI messages.

A message is one MPI message, its *head*: how many frames, how long each is, and
the bytes of the small ones.  Large frames follow as *bodies*, MPI messages of
their own in pieces of at most 1 GiB, which MPI writes straight into the memory
that the receiver of the frame gets.

Invariants:

* No call blocks: heads are matched by ``Improbe`` (a later receive cannot take
  them away), everything is ``Isend``, ``Irecv`` and ``Test``.
* A probe in vain is made again at once: Open MPI looks for what has come only after it has
  answered, so it is the second that tells.  (By one probe a rank that was rung saw nothing, and
  saw the message a millisecond later, when it looked again.)
* Bodies carry no identifier.  MPI keeps the order of equal (sender, tag), senders
  post them in the order of their heads, and a lane opens heads in that order too.
* A buffer stays referenced until MPI has said that it is done with it, for ever
  if the peer is gone.

Threads: the lock of :class:`~dtm.comm.mpi.manager.MpiManager` is held in each method and
around each access of an attribute, by readers too: MPI calls release the
interpreter, so another thread would see a queue in the middle of a change.

============== =================================== ========================
attribute      written by                          read by
============== =================================== ========================
``_outgoing``  ``send``, ``receive``, ``look``,    the same, ``receivers``,
               ``abandon``                         ``sending``
``_lanes``     ``receive``, ``look``, ``abandon``  the same
``_abandoned`` ``abandon``                         nobody: it keeps buffers
``load``       all of the former                   the manager
``traffic``    ``send``, ``receive``, ``look``     the manager
============== =================================== ========================

Rejected: receives posted in advance for small messages.  They save 0.3 µs, and
cost a buffer for each and a cancellation at the end, which MPI libraries get
wrong.
"""

from __future__ import annotations

import mmap
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, cast

from dtm.comm.base import Frame

if TYPE_CHECKING:
    from mpi4py import MPI

INLINE_LIMIT = 64 * 1024
HEAD_LIMIT = 1024 * 1024
PIECE_LIMIT = 1024 * 1024 * 1024
_HUGE_PAGES_FROM = 4 * 1024 * 1024
_HEADS_A_CALL = 1024
_VAIN_TESTS_A_CALL = 16
_HEAD_TAG = 1
_BODY_TAG = 2
_END_TAG = 3
_COUNT = struct.Struct("<I")
_ONE_FRAME = struct.Struct("<Iq")


def pack(frames: Sequence[Frame]) -> tuple[bytes, list[Frame]]:
    """Return the head of a message and the frames that do not fit into it.

    The length of a frame that stays outside is written as its complement.
    """
    if len(frames) == 1 and type(only := frames[0]) is bytes and len(only) <= INLINE_LIMIT:
        return _ONE_FRAME.pack(1, len(only)) + only, []
    parts: list[Frame] = []
    lengths: list[int] = []
    outside: list[Frame] = []
    room = HEAD_LIMIT
    for frame in frames:
        content = frame if type(frame) is bytes else _flat(frame)
        length = len(content)
        if length <= INLINE_LIMIT and length <= room:
            parts.append(content)
            lengths.append(length)
            room -= length
        else:
            outside.append(content)
            lengths.append(~length)
    if not (count := len(lengths)):
        message = "a message has at least one frame"
        raise ValueError(message)
    return b"".join((struct.pack(f"<I{count}q", count, *lengths), *parts)), outside


def _flat(frame: Frame) -> Frame:
    view = memoryview(frame)
    if view.ndim == 1 and view.format == "B":
        return view
    return view.cast("B") if view.nbytes else b""


def unpack(head: bytearray, land: Callable[[int], Frame]) -> list[Frame]:
    """Return the frames of a message; ``land(length)`` receives one sent by itself."""
    view = memoryview(head)
    count, length = _ONE_FRAME.unpack_from(head)
    if count == 1 and length >= 0:
        return [view[_ONE_FRAME.size :]]
    offset = _COUNT.size + 8 * count
    frames: list[Frame] = []
    for length in struct.unpack_from(f"<{count}q", head, _COUNT.size):
        if length < 0:
            frames.append(land(~length))
        else:
            frames.append(view[offset : offset + length])
            offset += length
    return frames


def pieces(frame: Frame) -> Iterable[Frame]:
    """Cut a frame into what one MPI message may carry."""
    if len(frame) <= PIECE_LIMIT:
        return (frame,)
    view = memoryview(frame)
    return (view[at : at + PIECE_LIMIT] for at in range(0, len(view), PIECE_LIMIT))


class _Opened(NamedTuple):
    """A message whose head has come: its frames, and the receives that still fill some of them."""

    frames: list[Frame]
    requests: deque[MPI.Request]
    load: int


class _Lane:
    """What one sender has under way to us: heads not yet here, then bodies not yet here."""

    __slots__ = ("bodies", "heads")

    def __init__(self) -> None:
        self.heads: deque[tuple[bytearray, MPI.Request]] = deque()
        self.bodies: deque[_Opened] = deque()

    def load(self) -> int:
        """Return how many bytes are expected; what has come in part counts in full."""
        return sum(len(head) for head, _ in self.heads) + sum(each.load for each in self.bodies)

    def ready(self) -> bool:
        """Tell whether the oldest message is complete."""
        if not self.bodies:
            return False
        requests = self.bodies[0].requests
        while requests and requests[0].Test():
            requests.popleft()
        return not requests


class Mail:
    """All messages of one rank that are under way, either way.

    Attributes:
        traffic: how often a message has begun or ended; it changes while MPI is at work.
        load: how many bytes are under way, either way; 0 if and only if nothing is.

    ``late(rank)`` is called when a message that MPI could not take at once has
    gone out.
    """

    def __init__(self, mpi: ModuleType, comm: MPI.Comm, late: Callable[[int], None]) -> None:
        self._mpi = mpi
        self._comm = comm
        self._late = late
        self._byte: MPI.Datatype = mpi.BYTE
        self._anyone: int = mpi.ANY_SOURCE
        self._status: MPI.Status = mpi.Status()
        self._outgoing: deque[tuple[MPI.Request, int, Frame]] = deque()
        self._lanes: dict[int, _Lane] = {}
        self._abandoned: list[object] = []
        self.traffic = 0
        self.load = 0

    @property
    def sending(self) -> bool:
        """Whether something of ours is not out yet."""
        return bool(self._outgoing)

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Start sending a message."""
        head, outside = pack(frames)
        self.traffic += 1
        self._post(rank, _HEAD_TAG, head)
        for frame in outside:
            for piece in pieces(frame):
                self._post(rank, _BODY_TAG, piece)

    def _post(self, rank: int, tag: int, content: Frame) -> None:
        request = self._comm.Isend((content, self._byte), rank, tag)
        if not request.Test():
            self._outgoing.append((request, rank, content))
            self.load += len(content)

    def receive(self) -> list[tuple[int, list[Frame]]]:
        """Return the messages that are complete, each sender's in its order."""
        message = self._comm.Improbe(self._anyone, _HEAD_TAG, self._status)
        if message is None:
            message = self._comm.Improbe(self._anyone, _HEAD_TAG, self._status)
        if message is None and not self._outgoing and not self._lanes:
            return []
        complete: list[tuple[int, list[Frame]]] = []
        for _ in range(_HEADS_A_CALL):
            if message is None:
                break
            self._take(message, complete)
            message = self._comm.Improbe(self._anyone, _HEAD_TAG, self._status)
        if message is not None:
            self._take(message, complete)
        if self._outgoing:
            self._push()
        if self._lanes:
            self._collect(complete)
        return complete

    def _take(self, message: MPI.Message, complete: list[tuple[int, list[Frame]]]) -> None:
        """Receive one head; put its message into ``complete`` or into its sender's lane."""
        sender = self._status.Get_source()
        head = bytearray(self._status.Get_count(self._byte))
        request = message.Irecv((head, self._byte))
        self.traffic += 1
        if not request.Test() or sender in self._lanes:
            lane = self._lanes.setdefault(sender, _Lane())
            lane.heads.append((head, request))
            self.load += len(head)
            return
        opened = self._open(sender, head)
        if opened.requests:
            lane = self._lanes[sender] = _Lane()
            lane.bodies.append(opened)
            self.load += opened.load
        else:
            complete.append((sender, opened.frames))

    def _open(self, sender: int, head: bytearray) -> _Opened:
        """Read a head and post the receives of the bodies that it announces."""
        requests: deque[MPI.Request] = deque()
        load = len(head)

        def land(length: int) -> Frame:
            nonlocal load
            load += length
            block = _fresh_memory(self._mpi, length)
            for piece in pieces(block):
                requests.append(self._comm.Irecv((piece, self._byte), sender, _BODY_TAG))
            return block

        frames = unpack(head, land)
        return _Opened(frames, requests, load)

    def _advance(self, sender: int, lane: _Lane) -> bool:
        """Open the heads that have come; tell whether the oldest message is complete."""
        while lane.heads and lane.heads[0][1].Test():
            head, _ = lane.heads.popleft()
            opened = self._open(sender, head)
            lane.bodies.append(opened)
            self.load += opened.load - len(head)
        return lane.ready()

    def _collect(self, complete: list[tuple[int, list[Frame]]]) -> None:
        for sender, lane in list(self._lanes.items()):
            while self._advance(sender, lane):
                arrived = lane.bodies.popleft()
                complete.append((sender, arrived.frames))
                self.load -= arrived.load
                self.traffic += 1
            if not lane.heads and not lane.bodies:
                del self._lanes[sender]

    def _push(self) -> None:
        """Test the sends under way until some are not out.  The queue turns: each gets tested."""
        vain = min(len(self._outgoing), _VAIN_TESTS_A_CALL)
        while self._outgoing and vain:
            entry = self._outgoing.popleft()
            if entry[0].Test():
                self.traffic += 1
                self.load -= len(entry[2])
                self._late(entry[1])
            else:
                self._outgoing.append(entry)
                vain -= 1

    def look(self) -> bool:
        """Let MPI work; tell whether ``receive`` would return or start something."""
        if self._outgoing:
            self._push()
        probe = self._comm.Iprobe
        if probe(self._anyone, _HEAD_TAG) or probe(self._anyone, _HEAD_TAG):
            return True
        advanced = [self._advance(sender, lane) for sender, lane in self._lanes.items()]
        return any(advanced)

    def announce_end(self, ranks: Iterable[int]) -> None:
        """Tell ranks to finalise MPI without waiting for the others, see ``end_announced``."""
        for rank in ranks:
            self._post(rank, _END_TAG, b"end")

    def end_announced(self) -> bool:
        """Whether the root has called ``announce_end``."""
        return bool(self._comm.Iprobe(0, _END_TAG))

    def receivers(self) -> set[int]:
        """Return the ranks to which something is not out yet."""
        return {rank for _, rank, _ in self._outgoing}

    def abandon(self, rank: int) -> None:
        """Stop waiting for a rank that is gone.  MPI may still write: keep the buffers."""
        self._abandoned += [entry for entry in self._outgoing if entry[1] == rank]
        self._outgoing = deque(entry for entry in self._outgoing if entry[1] != rank)
        self._abandoned.append(self._lanes.pop(rank, None))
        self.load = sum(lane.load() for lane in self._lanes.values())
        self.load += sum(len(content) for _, _, content in self._outgoing)


def _fresh_memory(mpi: ModuleType, length: int) -> memoryview:
    """Return writable memory that nobody has zeroed; huge pages make the first touch cheap."""
    if length >= _HUGE_PAGES_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        block = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            block.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them
            return memoryview(block)
        return memoryview(block)
    return cast("memoryview", memoryview(mpi.buffer.allocate(length)))
