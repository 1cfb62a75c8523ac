"""Memory that other processes of this machine can map: segments, written once each time.

A segment is an anonymous file in memory (``memfd_create``).  Another process of the same user opens
it as ``/proc/PID/fd/N``, so no descriptor is passed and no name stands in a directory: the kernel
frees the memory when the last descriptor is closed and the last mapping is gone, however the
processes have ended.  It does not count against the size of ``/dev/shm``, which containers keep
small.

A segment that nobody reads any more is kept idle and written again: to get fresh pages from the
kernel takes as long as to write them (measured, 8 MB: 4.4 ms fresh, 2.2 ms again).  Idle ones are
bounded in bytes, open ones in number, for each takes a descriptor.

Whoever opens a segment sees by its name, which is random, that it is the one that was meant, not a
file of a process that has the same number in another container or has got it since.

Threads: one at a time; :mod:`dtm.comm.sharing` says which.

Rejected: files in ``/dev/shm``, by hand or by ``multiprocessing.shared_memory`` (what is killed at
the wrong moment leaves them behind, and 64 MB are usual in containers); descriptors that are passed
over Unix sockets (not every manager has one).
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any, Final

MOST_OPEN: Final = 256
"""Segments that one process has open."""

MOST_MAPPED: Final = 10_000 if sys.version_info >= (3, 13) else 256
"""Segments of others that one process has mapped; before Python 3.13 each takes a descriptor."""

_READ_ONLY: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

Card = tuple[int, int, str]
"""What others need to look at this process's segments: process id, a descriptor, its name."""


def available() -> bool:
    """Tell whether this system has such memory."""
    return hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


def bounded(most: int) -> int:
    """Return how many descriptors of so many this process may take."""
    limit = getrlimit(RLIMIT_NOFILE)[0]
    return most if limit == RLIM_INFINITY else min(most, limit // 4)


class Segment:
    """One piece of memory.

    Attributes:
        descriptor: where it is open.
        number: tells it from the others of this process.
        capacity: bytes of memory that it has.
        size: bytes that were written last.
        lent: who reads it, by tickets, and whether that is known to have mapped it.
        kept: whether it may be lent once more, though nobody reads it just now.
        reusable: whether it may be written again.
    """

    __slots__ = ("capacity", "descriptor", "kept", "lent", "number", "reusable", "size")

    def __init__(self, descriptor: int, number: int) -> None:
        self.descriptor = descriptor
        self.number = number
        self.capacity = 0
        self.size = 0
        self.lent: dict[int, bool] = {}
        self.kept = False
        self.reusable = True

    def write(self, data: memoryview) -> None:
        """Write bytes from its beginning on; ``OSError`` if there is no memory."""
        done = 0
        while done < len(data):
            done += os.pwrite(self.descriptor, data[done:], done)
            self.capacity = max(self.capacity, done)
        self.size = done

    def content(self) -> memoryview | bytearray:
        """Return what was written, in memory that outlives the descriptor."""
        area = mapped(self.descriptor, self.size)
        if area is not None:
            return memoryview(area)
        copy = read(self.descriptor, self.size)
        assert copy is not None, "this process cannot read what it has written"
        return copy


class Segments:
    """The segments of this process.

    Args:
        idle_bytes: how much memory is kept for segments to come.
        most_open: how many may be open.
    """

    def __init__(self, idle_bytes: int, most_open: int | None = None) -> None:
        self._idle_bytes = idle_bytes
        self._most = bounded(MOST_OPEN) if most_open is None else most_open
        self._token = os.urandom(12).hex()
        self._open: dict[int, Segment] = {}
        self._idle: list[Segment] = []
        self._made = 0
        self._probe = self._make()

    @property
    def card(self) -> Card:
        """What others need to find the segments."""
        return os.getpid(), self._probe.descriptor, _name(self._token, self._probe.number)

    @property
    def held_bytes(self) -> int:
        """The memory of all the segments that are open."""
        return sum(segment.capacity for segment in self._open.values())

    @property
    def idle_bytes(self) -> int:
        """The memory of those that nobody reads."""
        return sum(segment.capacity for segment in self._idle)

    def written(self, data: memoryview) -> Segment | None:
        """Return a segment that holds these bytes, None if there is no room for one."""
        segment = self._fitting(len(data))
        if segment is None:
            if len(self._open) > self._most and not self._close_one():
                return None
            try:
                segment = self._make()
            except OSError:
                return None
        try:
            segment.write(data)
        except OSError:
            self.drop(segment)
            return None
        return segment

    def free(self, segment: Segment) -> None:
        """Take back a segment that nobody reads any more, to be written again."""
        if segment.number not in self._open:
            return
        if self.idle_bytes + segment.capacity > self._idle_bytes:
            self.drop(segment)
        else:
            self._idle.append(segment)

    def drop(self, segment: Segment) -> None:
        """Close a segment: its memory goes when the last reader does."""
        if self._open.pop(segment.number, None) is not None:
            os.close(segment.descriptor)

    def close(self) -> None:
        """Close all."""
        for segment in [*self._open.values()]:
            with suppress(OSError):
                self.drop(segment)
        self._idle.clear()

    def _make(self) -> Segment:
        number = self._made
        self._made += 1
        segment = Segment(os.memfd_create(_name(self._token, number)), number)
        self._open[number] = segment
        return segment

    def _fitting(self, size: int) -> Segment | None:
        """Take an idle segment of about this size: a much larger one would waste memory."""
        fitting = [one for one in self._idle if size <= 2 * one.capacity <= 4 * size]
        if not fitting:
            return None
        segment = min(fitting, key=lambda one: abs(one.capacity - size))
        self._idle.remove(segment)
        return segment

    def _close_one(self) -> bool:
        """Close an idle segment, or one that all its readers have mapped."""
        if self._idle:
            self.drop(self._idle.pop(0))
            return True
        for segment in self._open.values():
            if segment is not self._probe and not segment.kept and all(segment.lent.values()):
                self.drop(segment)
                return True
        return False


def _name(token: str, number: int) -> str:
    return f"dtm-{token}-{number}"


def opened(card: Card, descriptor: int | None = None, number: int | None = None) -> int | None:
    """Open a segment of another process; None if it cannot be, or is another file.

    Without ``descriptor`` and ``number`` it is the one that the card names.
    """
    process, probe, name = card
    if descriptor is not None:
        probe, name = descriptor, f"{name.rpartition('-')[0]}-{number}"
    path = f"/proc/{process}/fd/{probe}"
    try:
        if os.readlink(path) != f"/memfd:{name} (deleted)":
            return None
        return os.open(path, _READ_ONLY)
    except OSError:
        return None


def mapped(descriptor: int, size: int) -> mmap.mmap | None:
    """Map a segment, so that what is written there is seen here alone; None if it cannot be."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    try:
        return mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, protection, **_UNTRACKED)
    except (OSError, ValueError):
        return None


def read(descriptor: int, size: int) -> bytearray | None:
    """Return a copy of a segment, None if it cannot be read."""
    data = bytearray(size)
    into, done = memoryview(data), 0
    try:
        while done < size:
            got = os.preadv(descriptor, [into[done:]], done)
            if not got:
                return None
            done += got
    except OSError:
        return None
    return data
