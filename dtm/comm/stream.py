"""A framed stream: messages over one connected socket that never blocks.

On the wire a message is its header, the number of frames (4 bytes) and the
length of each (8 bytes), all little-endian, and then the frames.  A message of
no frames is the *farewell*: the peer leaves the run and sends nothing more.  So
an end of file after a farewell is orderly, and one without it is a lost peer.
A *notice*, marked by the highest bit of the number, is what managers say to each
other.

Output: frames below 64 KiB are copied together, so that a small message is one
system call; larger ones go out from where they lie.  What the kernel does not
take at once is queued.  Input: one read takes as many small messages as there
are, while the rest of a large frame is read straight into the memory that the
receiver gets, as a writable ``memoryview``.

Threads: the output half (``send``, ``leave``, ``flush``) and the input half (``receive``)
share no attribute but ``_socket``, which both only read; where that is a
:class:`Channel` with state in common it has a lock of its own.  Each half may be used by
one thread at a time, the two at the same time.  :mod:`dtm.comm.stream_manager` says by which
locks.  ``close`` belongs to both.

======================================================= ==================================
attribute                                               half that writes it and reads it
======================================================= ==================================
``_queue``, ``_sent``, ``_tail``, ``_broken``,          output
``_write_error``
``peer``, ``greeted``, ``ended``, ``orderly``,          input
``dry``, ``notices``, ``_read_error``, ``_buffer``
and what follows it
======================================================= ==================================

Rejected: ``sendmsg`` over all frames.  Building its vector costs more than
copying what is small, and saves one call in many for what is large.  And one
``bytearray`` for a frame of any size: from 32 MiB on malloc maps fresh pages each
time, and touching those costs three times the transfer (measured: 64 MB at 1.1
GB/s so, at 2 and more in huge pages; the socket itself moves 5).
"""

from __future__ import annotations

import mmap
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct, pack, unpack_from
from typing import Protocol

from dtm.comm.base import Frame

# Without it (macOS) there is only what the interpreter does about SIGPIPE.
_QUIETLY: int = getattr(socket, "MSG_NOSIGNAL", 0)

_COUNT = Struct("<I")
_NOTICE = 1 << 31
_LARGE = 1 << 16
_BUFFER = 1 << 17
_BUDGET = 1 << 22
_MAPPED = 1 << 25  # where glibc's malloc ceases to reuse what was freed


def _flat(frame: Frame) -> Frame:
    """Return the frame as something whose ``len`` is its number of bytes."""
    if isinstance(frame, (bytes, bytearray)):
        return frame
    view = memoryview(frame)
    return view.cast("B") if view.nbytes else b""


def _memory(size: int) -> memoryview:
    """Return memory for a frame to be read into."""
    if size >= _MAPPED and sys.platform == "linux":
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without huge pages
            area.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(area)
    return memoryview(bytearray(size))


class Channel(Protocol):
    """What a stream needs where it is not given a socket: the same calls, and two more."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def setblocking(self, flag: bool, /) -> None:
        """Set the mode."""

    def send(self, data: bytes | memoryview, flags: int, /) -> int:
        """Write; ``BlockingIOError`` if nothing can be, and the same bytes come again first."""

    def recv_into(self, target: memoryview, /) -> int:
        """Read; ``BlockingIOError`` if there is nothing, and the same memory comes again."""

    def close(self) -> None:
        """Close the connection."""

    def pause(self) -> None:
        """Hand over what has been read already, and then act as if there were nothing more."""

    def drained(self) -> bool:
        """Whether the last read gave all that there is for now, here and in the kernel."""


class FramedStream:
    """One connection to a peer.

    Attributes:
        peer: the rank at the other end, -1 while it has not said.
        greeted: whether the peer has said who it is (or need not).
        ended: whether nothing more can come: end of file, or an error.
        orderly: whether the peer's farewell has come.
        dry: whether the last ``receive`` left nothing in the kernel.
        notices: those that came, until somebody takes them.
    """

    def __init__(
        self, connection: socket.socket | Channel, peer: int = -1, *, greeted: bool = False
    ) -> None:
        connection.setblocking(False)
        self.peer = peer
        self.greeted = greeted
        self.ended = self.orderly = self.dry = False
        self.notices: list[list[Frame]] = []
        self._read_error: OSError | None = None
        self._write_error: OSError | None = None
        self._socket = connection
        # It may keep back what it has read: only it knows when it is dry, and no selector.
        self._channel = None if isinstance(connection, socket.socket) else connection
        self._queue: deque[Frame] = deque()
        self._sent = 0  # how much of the first in the queue is out
        self._tail: bytearray | None = None  # the last in the queue, if small frames may join it
        self._broken = False
        self._buffer = memoryview(bytearray(_BUFFER))
        self._begin = self._end = 0  # what lies in the buffer and is not parsed
        self._sizes: tuple[int, ...] | None = None  # of the message that is arriving
        self._is_notice = False
        self._frames: list[Frame] = []
        self._large = self._rest = self._buffer[:0]  # what is read in place, and what it lacks

    def __repr__(self) -> str:
        state = "orderly" if self.orderly else "ended" if self.ended else "open"
        return f"<FramedStream to {self.peer}, {state}, {len(self._queue)} queued>"

    def fileno(self) -> int:
        """Return the descriptor of the socket, for a selector."""
        return self._socket.fileno()

    @property
    def error(self) -> OSError | None:
        """What broke the connection, if it was no end of file."""
        return self._write_error or self._read_error

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        self._break()
        self._socket.close()

    # Output

    def send(self, frames: Sequence[Frame], *, notice: bool = False) -> bool:
        """Write one message, or queue what does not fit; return whether anything is queued."""
        flat = [frame if type(frame) is bytes else _flat(frame) for frame in frames]
        sizes = list(map(len, flat))
        header = pack(f"<I{len(flat)}Q", len(flat) | (_NOTICE if notice else 0), *sizes)
        if sum(sizes) < _LARGE:
            self._put(b"".join((header, *flat)))
        else:
            self._put_large(header, flat)
        return bool(self._queue)

    def leave(self) -> bool:
        """Send the farewell; return whether anything is queued."""
        self._put(_COUNT.pack(0))
        return bool(self._queue)

    def flush(self) -> bool:
        """Write what is queued, as far as the kernel takes it; return whether anything is left."""
        queue = self._queue
        while queue:
            first = queue[0]
            sent = self._write(memoryview(first)[self._sent :])
            if sent == 0:
                break
            self._sent += sent
            if self._sent == len(first):
                queue.popleft()
                self._sent = 0
        if not queue:
            self._tail = None
        return bool(queue)

    def _put(self, data: bytes) -> None:
        if not self._queue:
            data = data[self._write(data) :]
        if data and not self._broken:
            self._gather(data)

    def _put_large(self, header: bytes, frames: Sequence[Frame]) -> None:
        if self._broken:
            return
        idle = not self._queue
        self._gather(header)
        for frame in frames:
            if not frame:
                continue  # nothing of it goes on the wire, and nothing in the queue may be empty
            if len(frame) < _LARGE:
                self._gather(frame)
            else:
                self._queue.append(frame)
                self._tail = None
        if idle:
            self.flush()

    def _gather(self, data: Frame) -> None:
        if self._tail is None or len(self._tail) >= _LARGE:
            self._tail = bytearray()
            self._queue.append(self._tail)
        self._tail += data

    def _write(self, data: bytes | memoryview) -> int:
        """Return how many bytes the kernel took; 0 too where it never will again."""
        if self._broken:
            return 0
        try:
            return self._socket.send(data, _QUIETLY)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._write_error = error
            self._break()
            return 0

    def _break(self) -> None:
        """Give up the output half; that the peer is gone shows at the input half."""
        self._broken = True
        self._queue.clear()
        self._tail = None
        self._sent = 0

    # Input

    def receive(self) -> list[list[Frame]]:
        """Return the messages that are complete, from at most 4 MiB of what the kernel has."""
        messages: list[list[Frame]] = []
        budget = _BUDGET
        self.dry = self.ended
        while not self.dry:
            if budget <= 0:
                if self._channel is None:
                    break
                self._channel.pause()
            target = self._rest or self._buffer[self._end :]
            try:
                size = self._socket.recv_into(target)
            except BlockingIOError:
                self.dry = budget > 0
                break
            except OSError as error:
                self._read_error = error
                size = 0
            self.ended = size == 0
            spent = size < len(target) if self._channel is None else self._channel.drained()
            self.dry = self.ended or spent
            budget -= size
            if not self._rest:
                self._end += size
                self._parse(messages)
            elif self._fill(size):
                self._parse(messages)
        return messages

    def _fill(self, size: int) -> bool:
        """Account for what was read in place; return whether that frame is complete."""
        self._rest = self._rest[size:]
        if self._rest:
            return False
        self._frames.append(self._large)
        self._large = self._rest = self._buffer[:0]  # not a view of it may stay behind
        return True

    def _parse(self, messages: list[list[Frame]]) -> None:
        """Cut what lies in the buffer into messages."""
        while self._begin < self._end or self._sizes is not None:
            if self._sizes is None:
                self._sizes = self._take_header()
            if self._sizes is None or not self._take_frames(self._sizes):
                break
            if self._sizes:
                (self.notices if self._is_notice else messages).append(self._frames)
                self._frames = []
            else:
                self.orderly = True
            self._sizes = None
        if self._begin == self._end:
            self._begin = self._end = 0

    def _take_header(self) -> tuple[int, ...] | None:
        count = 0
        length = _COUNT.size
        if self._end - self._begin >= length:
            count = _COUNT.unpack_from(self._buffer, self._begin)[0]
            self._is_notice = count & _NOTICE != 0
            count &= ~_NOTICE
            length += 8 * count
        if self._end - self._begin < length:
            self._make_room(length)
            return None
        sizes = unpack_from(f"<{count}Q", self._buffer, self._begin + _COUNT.size)
        self._begin += length
        return sizes

    def _take_frames(self, sizes: tuple[int, ...]) -> bool:
        """Take the frames of one message; return whether they are complete."""
        begin, end, buffer, frames = self._begin, self._end, self._buffer, self._frames
        for size in sizes[len(frames) :]:
            if size <= end - begin:
                frames.append(buffer[begin : begin + size].tobytes())
                begin += size
                continue
            self._begin = begin
            if size < _LARGE:
                self._make_room(size)
            else:
                self._take_in_place(size)
            return False
        self._begin = begin
        return True

    def _take_in_place(self, size: int) -> None:
        have = self._end - self._begin
        self._large = _memory(size)
        self._large[:have] = self._buffer[self._begin : self._end]
        self._rest = self._large[have:]
        self._begin = self._end = 0

    def _make_room(self, length: int) -> None:
        """Move what is left to the start of a buffer that holds ``length`` bytes and more."""
        have = self._end - self._begin
        left = self._buffer[self._begin : self._end]
        if length > len(self._buffer):
            self._buffer = memoryview(bytearray(2 * length))
        self._buffer[:have] = left
        self._begin, self._end = 0, have
