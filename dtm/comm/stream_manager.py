"""A manager whose peers are joined by framed streams; how they connect is the subclass's.

One selector watches every stream, the listening socket, the wake-up socket and
whatever else the subclass wants watched (``_watch``).  A stream to a peer is
opened when the first message for it is sent, and its first message says who is
calling.  If two peers call each other at once both streams live, and each side
keeps to the one it first used, so that order per direction holds.

Threads: ``send``, ``receive``, ``lost`` and ``absent`` are called under the caller's lock (the
worker's), ``wait`` is not.  So ``wait`` never reads a stream.  But what is queued has to go
out even if nobody calls ``send`` again, so ``wait`` writes; what that touches belongs to
``_output``, a lock that is held for single writes.  Of several threads in ``wait`` one polls
(it holds ``_polling``) and the others queue for that lock; whoever gets it after a
``wake`` finds ``_generation`` changed and returns.

A thread that *stands by* while another one runs a task sleeps on an epoll instance around the
selector, ``_outer``.  Who reads the messages itself switches that off: one system call, which wakes
nobody.  (To call the other thread back from its wait, and let it in again, took four switches of
threads for each spell without work, half of all that a worker of short maps had.)

============================= =============================== ============================
attribute                     written by                      under
============================= =============================== ============================
output halves of streams,     ``send``, ``receive``,          ``_output``, for reading too
``_unsent``, what             ``wait``, ``close``
``_selector`` watches
``_routes``, ``_gone``,       ``send``, ``receive``,          the caller's lock, for
``_losses``, ``_streams``,    ``lost``, ``close``             reading too
``_sources``, ``_leaving``,
input halves of streams
``_generation``               ``wait``                        ``_polling``; ``wait`` also
                                                              notes it before it queues
``_waker``                    the constructor, ``close``      nothing: a signal handler
                                                              may interrupt any thread
============================= =============================== ============================

``_before_sleep`` and ``_spinning`` are used under ``_polling``, ``_glance`` under the lock of the
caller.  The selector and ``_outer`` are asked without a lock: the kernel, which keeps the list of
what is watched, orders that.  What was dropped since is dropped when it comes up.

Rejected: every thread polling for itself.  Then the first to read the wake-up
byte takes it from the others.
"""

from __future__ import annotations

import select
import socket
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector, SelectorKey
from threading import Lock
from time import monotonic
from typing import Any, Protocol

from dtm.comm.base import Frame, LostPeer
from dtm.comm.forked import Forkable
from dtm.comm.spinning import CORES, LOOK_SECONDS, Spinning
from dtm.comm.stream import FramedStream

Received = list[tuple[int, list[Frame]]]
Ready = list[tuple[SelectorKey, int]]

_LONGEST_WAIT = 3600.0  # a wait may return early, and some system calls know no eternity
_COARSE = 0.002  # epoll counts whole milliseconds: below this, select times the wait
_LOOK = 0.05  # seconds between looks at what is left, for who leaves
_SELECTABLE = 1024  # the first descriptor that select does not know


def _around(descriptor: int) -> Any:
    """Return an epoll instance that watches a selector, None where the system has no epoll."""
    if not hasattr(select, "epoll"):
        return None
    outer = select.epoll()
    outer.register(descriptor, select.EPOLLIN)
    return outer


class Source(Protocol):
    """What can be watched: a socket, a file, a process."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def close(self) -> None:
        """Close the descriptor."""


class StreamManager(Forkable):
    """Frames over streams.  A subclass gives ``_connect``, and may refine ``_admit``."""

    def __init__(self, rank: int, size: int, hosts: Sequence[str]) -> None:
        super().__init__()
        self.rank = rank
        self.size = size
        self.hosts = hosts
        # Under the caller's lock.
        self._leaving = False
        self._routes: dict[int, FramedStream] = {}  # where messages to a rank go out
        self._gone: set[int] = set()  # peers that left or are lost
        self._losses: list[LostPeer] = []
        self._streams: set[FramedStream] = set()
        self._listener: socket.socket | None = None
        self._sources: set[Source] = set()  # what is watched besides
        # Under _output, as the output halves of the streams.
        self._output = Lock()
        self._unsent: set[FramedStream] = set()  # those with output queued
        self._selector = DefaultSelector()
        # Under _polling.
        self._polling = Lock()
        self._generation = 0
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, EVENT_READ, None)
        self._descriptor = self._selector.fileno()
        self._glance = select.poll()
        self._glance.register(self._descriptor, select.POLLIN)
        self._outer = _around(self._descriptor)
        self._spinning = Spinning()
        self._before_sleep = select.poll()  # another, for two threads cannot use one at once
        self._before_sleep.register(self._descriptor, select.POLLIN)

    def __repr__(self) -> str:
        routes = sorted(self._routes)
        return f"<{type(self).__name__} {self.rank} of {self.size}, streams to {routes}>"

    # For subclasses

    @abstractmethod
    def _connect(self, rank: int) -> socket.socket | None:
        """Return a socket connected to a peer, None if the peer has left the run.

        An ``OSError`` means that the peer is lost.
        """

    def _admit(self, connection: socket.socket) -> bool:  # noqa: ARG002 - for those who refine it
        """Whether whoever opened this connection may talk to this worker."""
        return True

    def _explain(self, rank: int, error: OSError | None) -> str:  # noqa: ARG002 - for those who refine it
        """Return the reason to report for a peer whose stream ended without a farewell.

        Args:
            rank: the peer's.
            error: what broke the stream, None if it came to its end.  A process that is killed
                leaves either, depending on whether it had read all that was sent to it.
        """
        return "its connection ended without a farewell"

    def _listen(self, listener: socket.socket) -> None:
        """Accept peers from this socket."""
        listener.setblocking(False)
        self._listener = listener
        self._watch(listener, self._accept)

    def _watch(
        self, source: Source, act: Callable[[Received], None], events: int = EVENT_READ
    ) -> None:
        """Let ``receive`` call ``act`` whenever ``source`` is readable; it is ours from now on."""
        self._sources.add(source)
        with self._output:
            self._selector.register(source, events, act)

    def _linger(self, deadline: float) -> None:
        """Wait until the peers have what the kernel has taken, if a close could drop that."""

    def _release(self, source: Source) -> None:
        """Watch a source no more; it is the caller's from now on."""
        self._sources.discard(source)
        with self._output:
            self._selector.unregister(source)

    def _unwatch(self, source: Source) -> None:
        self._release(source)
        source.close()

    def _adopt(self, stream: FramedStream) -> None:
        """Read from this stream, and send to its peer by it if there is no other."""
        self._streams.add(stream)
        with self._output:
            self._selector.register(stream, EVENT_READ, stream)
        if stream.peer >= 0:
            self._routes.setdefault(stream.peer, stream)

    def _lose(self, rank: int, reason: str) -> None:
        """Report a peer as lost, unless it has left or been reported already."""
        if rank not in self._gone:
            self._gone.add(rank)
            self._losses.append(LostPeer(rank, reason))
        if (stream := self._routes.get(rank)) is not None:
            self._drop(stream)

    # The interface

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Send one message: write what the kernel takes, queue the rest."""
        stream = self._routes.get(rank) or self._open(rank)
        if stream is not None:
            with self._output:
                if stream.send(frames):
                    self._send_rest_later(stream)

    def receive(self) -> Received:
        """Read what has come; accept, flush and notice losses on the way."""
        received: Received = []
        if not self._glance.poll(0):  # as nearly always; the selector takes ten times as long
            return received
        for key, events in self._selector.select(0):
            source = key.data
            if isinstance(source, FramedStream):
                if events & EVENT_WRITE:
                    self._flush(source)
                if events & EVENT_READ:
                    self._read(source, received)
            elif source is not None:
                source(received)
        return received

    def wait(self, timeout: float) -> None:
        """Poll, and write what is queued, until something else happens."""
        timeout = max(0.0, min(timeout, _LONGEST_WAIT))
        deadline = monotonic() + timeout
        generation = self._generation
        if not self._polling.acquire(timeout=timeout):
            return
        try:
            self._look_first(deadline)
            while self._generation == generation:
                ready = self._poll(max(0.0, deadline - monotonic()))
                if not ready or self._handle(ready):
                    return
        finally:
            self._polling.release()

    def stand_by(self, timeout: float) -> bool:
        """Sleep on the epoll instance around the selector, which ``alert`` switches off."""
        if self._outer is None:
            return super().stand_by(timeout)
        if not self._outer.poll(min(timeout, _LONGEST_WAIT)):
            return False
        if self._polling.acquire(blocking=False):
            try:
                self._handle(self._selector.select(0))
            finally:
                self._polling.release()
        return True

    def alert(self, on: bool) -> bool:
        """Switch on or off what wakes the thread that stands by."""
        if self._outer is None:
            return False
        self._outer.modify(self._descriptor, select.EPOLLIN if on else 0)
        return True

    def wake(self) -> None:
        """End the waits; takes no lock, so a signal handler may call it."""
        with suppress(OSError):  # full, so there are bytes enough; or closed
            self._waker.send(b"\0")

    def lost(self) -> list[LostPeer]:
        """Hand out what ``receive`` has noticed since the last time."""
        losses = self._losses
        if losses:
            self._losses = []
        return losses

    def close(self, timeout: float) -> None:
        """Say farewell on every stream, and read on meanwhile: peers may be flushing too."""
        deadline = monotonic() + timeout
        self._leaving = True
        self.receive()
        for stream in tuple(self._streams):
            self._say_farewell(stream)
        while self._unsent and (left := deadline - monotonic()) > 0:
            self._handle(self._poll(min(left, _LOOK)))
            self.receive()
        self._linger(deadline)
        for stream in tuple(self._streams):
            self._drop(stream)
        self._close_copies()

    def _close_copies(self) -> None:
        own = self._waker, self._woken, self._selector, *([self._outer] if self._outer else ())
        for source in (*self._streams, *self._sources, *own):
            with suppress(OSError):  # already in the course of being closed
                source.close()

    # Waiting

    def _look_first(self, deadline: float) -> None:
        """Look for a moment whether something comes, where that is quicker than to sleep."""
        now = monotonic()
        # Where a thread cannot stand by, it would be one that looks beside a task.
        if self._outer is None or not self._spinning.pays(self._workers_here(), now):
            return
        poll, end = self._before_sleep.poll, min(deadline, now + LOOK_SECONDS)
        while now < end and not poll(0):
            now = self._spinning.give_way()
            if not self._spinning.pays(0, now):
                return

    def _workers_here(self) -> int:
        return self.size if self.size <= CORES else self.hosts.count(self.hosts[self.rank])

    def _poll(self, timeout: float) -> Ready:
        if 0 < timeout < _COARSE and self._descriptor < _SELECTABLE:
            select.select([self._descriptor], (), (), timeout)
            timeout = 0
        return self._selector.select(timeout)

    def _handle(self, ready: Ready) -> bool:
        """Write where that is possible; return whether there is more to do than that."""
        more = False
        for key, events in ready:
            if key.data is None:
                self._generation += 1
                with suppress(BlockingIOError):
                    self._woken.recv(1 << 12)
            if events & EVENT_WRITE and isinstance(key.data, FramedStream):
                self._flush(key.data)
                more = more or events & EVENT_READ != 0
            else:
                more = True
        return more

    # Output

    def _flush(self, stream: FramedStream) -> None:
        with self._output:
            if stream in self._unsent and not stream.flush():
                self._unsent.remove(stream)
                self._selector.modify(stream, EVENT_READ, stream)

    def _send_rest_later(self, stream: FramedStream) -> None:
        """Have the rest written when the kernel takes more.  The caller holds ``_output``."""
        if stream not in self._unsent:
            self._unsent.add(stream)
            self._selector.modify(stream, EVENT_READ | EVENT_WRITE, stream)

    def _say_farewell(self, stream: FramedStream) -> None:
        with self._output:
            if stream.leave():
                self._send_rest_later(stream)

    # Streams coming and going

    def _open(self, rank: int) -> FramedStream | None:
        if rank == self.rank or not 0 <= rank < self.size:
            message = f"worker {self.rank} of {self.size} cannot send to {rank}"
            raise ValueError(message)
        if rank in self._gone:
            return None
        try:
            connection = self._connect(rank)
        except OSError as error:
            self._lose(rank, f"it cannot be reached: {error.strerror or error}")
            return None
        if connection is None:
            self._gone.add(rank)
            return None
        stream = FramedStream(connection, rank, greeted=True)
        stream.send([self.rank.to_bytes(4, "little")])
        self._adopt(stream)
        return stream

    def _accept(self, _received: Received | None = None) -> None:
        with suppress(OSError):  # no more of them, or this one has given up already
            while self._listener is not None:
                connection, _ = self._listener.accept()
                if not self._admit(connection):
                    connection.close()
                    continue
                stream = FramedStream(connection)
                self._adopt(stream)
                if self._leaving:
                    self._say_farewell(stream)

    def _read(self, stream: FramedStream, received: Received) -> None:
        messages = stream.receive()
        if messages and not stream.greeted:
            self._greet(stream, messages.pop(0))
        peer = stream.peer
        if peer >= 0:
            for message in messages:
                received.append((peer, message))
        if stream.ended:
            self._stream_ended(stream, received)

    def _read_all(self, stream: FramedStream, received: Received) -> None:
        """Read to the end what came from a peer that writes no more."""
        stream.dry = False
        while not stream.dry:
            self._read(stream, received)

    def _greet(self, stream: FramedStream, greeting: list[Frame]) -> None:
        """Take the rank of a stream's peer from its first message."""
        stream.greeted = True
        rank = int.from_bytes(greeting[0], "little")
        if rank >= self.size or rank == self.rank:
            self._drop(stream)
            return
        stream.peer = rank
        # Of two streams that crossed, the other may have ended already; this one is read all
        # the same.
        if rank not in self._gone:
            self._routes.setdefault(rank, stream)

    def _stream_ended(self, stream: FramedStream, received: Received) -> None:
        """Conclude from the end of a stream that its peer has left, or is lost."""
        peer = stream.peer
        self._drop(stream)
        if stream.orderly:
            self._gone.add(peer)
        elif peer >= 0 and peer not in self._gone:
            self._read_crossed(peer, received)
            self._lose(peer, self._explain(peer, stream.error))

    def _read_crossed(self, peer: int, received: Received) -> None:
        """Read what a peer said on a stream that crossed the one which ended."""
        self._accept()
        for stream in tuple(self._streams):
            if stream.peer == peer or not stream.greeted:
                self._read(stream, received)

    def _drop(self, stream: FramedStream) -> None:
        if self._routes.get(stream.peer) is stream:
            del self._routes[stream.peer]
        with self._output:
            if stream in self._streams:
                self._streams.remove(stream)
                self._unsent.discard(stream)
                self._selector.unregister(stream)
                stream.close()
