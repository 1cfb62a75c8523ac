"""Channels: messages over a pair of descriptors, such as an agent's standard input and output.

Before its first message an agent writes one line that says who it is, its *hello*.  Others
write to its standard output too: shells greet, or ask, with no end of the line, and a message
to all users may come at any time.  So what stands before a message, or on a line of its own, is
*noise*: reported, and passed over.  An agent's input is the launcher's alone, and has none.

Some batch systems start a process on a host but pass nothing on to it, and put what it writes
where they see fit (``pbsdsh``).  There a *mailbox* replaces the standard streams: each side
appends to one file and follows the other, in a directory of the run that nobody else can enter
and that all hosts see.  A channel sees two pipes.  A file is opened anew at each look, since file
systems of clusters show what others have written to whoever opens, not to whoever waits.

Also here: the coroutines that wait for a descriptor or for the end of a process.

Threads: the event loop's.

Rejected: the pipe transports of ``asyncio``.  ``sshd`` gives a command one socket as its input and
output, and a transport that writes takes incoming data there for the end of the connection.  For
mailboxes: a socket; who may connect would have to be settled before the other side has a secret.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from dtm.comm.child import Child
from dtm.errors import CommunicationError
from dtm.launch.messages import BEGIN, Message, decode, encode
from dtm.version import VERSION

LONGEST = 64 << 20  # bytes of one message
LOOK_SECONDS = 0.1  # between looks at a file, or at a process without a pidfd
_READ = 1 << 18
_PIECE = 1 << 12  # a pipe that is writable takes so much without blocking
_CROWDED = 64  # messages that wait to be written before no more should be made
_HELLO = b"dtm-agent "
_LAST = b"\x04"  # ends a file of a mailbox; in no message: JSON escapes it


async def ready(descriptor: int, *, write: bool = False) -> None:
    """Wait until a descriptor can be read, or written."""
    loop = asyncio.get_running_loop()
    add, remove = (loop.add_reader, loop.remove_reader)
    if write:
        add, remove = (loop.add_writer, loop.remove_writer)
    event = asyncio.Event()
    add(descriptor, event.set)
    try:
        await event.wait()
    finally:
        remove(descriptor)


def read_now(descriptor: int) -> bytes | None:
    """Read what is there: None if that is nothing yet, nothing at the end of a file."""
    try:
        return os.read(descriptor, _READ)
    except BlockingIOError:
        return None
    except OSError:  # the connection is broken
        return b""


async def read(descriptor: int) -> bytes:
    """Read what comes next from a descriptor that does not block, nothing at its end."""
    data = None
    while data is None:
        await ready(descriptor)
        data = read_now(descriptor)
    return data


async def exited(child: Child) -> None:
    """Wait until a process has ended; does not reap it."""
    if child.watchable:
        await ready(child.fileno())
        return
    while child.process.returncode is None and not status(child.process.pid):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)  # nothing tells of the end where there are no pidfds


def status(process: int) -> os.waitid_result | None:
    """Return how a process has ended, without reaping it; None while it runs."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)


class Lines:
    """Cuts bytes into whole lines, their ends included.

    A line longer than ``longest`` comes in pieces, or is an error if ``strict``.
    """

    def __init__(self, longest: int, *, strict: bool) -> None:
        self._longest = longest
        self._strict = strict
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the lines that are whole now."""
        self._rest += data
        cut = self._rest.rfind(b"\n", len(self._rest) - len(data)) + 1
        if not cut and len(self._rest) > self._longest:
            if self._strict:
                raise CommunicationError(f"no message: {bytes(self._rest[:60])!r}")
            cut = len(self._rest)
        return self._take(cut)

    def rest(self) -> bytes:
        """Take out the line that has not ended."""
        return self._take(len(self._rest))

    def _take(self, cut: int) -> bytes:
        whole = bytes(self._rest[:cut])
        del self._rest[:cut]
        return whole


class Channel:
    """Messages to and from one process.

    Args:
        reading, writing: the descriptors, which are the channel's from now on.
        on_noise: takes what others have written; None if that is an error.

    Attributes:
        room: set unless many messages wait to be written.
    """

    def __init__(
        self, reading: int, writing: int, on_noise: Callable[[str], object] | None = None
    ) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self._reading = reading
        self._writing = writing
        self._on_noise = on_noise
        self._lines = Lines(LONGEST, strict=True)
        self._received: deque[bytes] = deque()
        self._queue: deque[memoryview] = deque()
        self._closing = False
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

    async def hello(self) -> str:
        """Wait for the line that an agent says first; return what it says.

        Raises:
            CommunicationError: the connection has ended.
        """
        line = b""
        while not line:
            line = self._without_noise(await self._line(), _HELLO)
        return line[len(_HELLO) :].decode("ascii", "replace").strip()

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            CommunicationError: the connection has ended, or what came is no message.
        """
        line = await self._line()
        while self._on_noise is not None and not (line := self._without_noise(line, BEGIN)):
            line = await self._line()
        return decode(line)

    def send(self, message: Message) -> None:
        """Send a message, or queue what cannot be written now."""
        if self._writing < 0 or self._closing:
            return
        self._queue.append(memoryview(encode(message)))
        if len(self._queue) == 1:
            self._flush()
        if len(self._queue) > _CROWDED:
            self.room.clear()

    def unended(self) -> str:
        """Take out what has come of a line that has not ended."""
        return self._lines.rest().decode("utf-8", "replace").strip()

    def close_output(self) -> None:
        """Tell the other side that nothing more will come, once all is written."""
        self._closing = True
        if not self._queue:
            self._drop_output()

    def close(self) -> None:
        """Close both descriptors; nobody must be waiting in ``hello`` or ``receive``."""
        self._drop_output()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    def _drop_output(self) -> None:
        self._queue.clear()
        self.room.set()
        if self._writing >= 0:
            asyncio.get_running_loop().remove_writer(self._writing)
            os.close(self._writing)
            self._writing = -1

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                written = os.write(self._writing, self._queue[0])
                self._queue[0] = self._queue[0][written:]
                if not self._queue[0]:
                    self._queue.popleft()
        except BlockingIOError:
            loop.add_writer(self._writing, self._flush)
        except OSError:  # nobody reads; that its output ends too will tell
            self._drop_output()
        else:
            loop.remove_writer(self._writing)
            self.room.set()
            if self._closing:
                self._drop_output()

    async def _line(self) -> bytes:
        while not self._received:
            data = await read(self._reading)
            if not data:
                raise CommunicationError("the connection ended")
            self._received.extend(self._lines.feed(data).splitlines())
        return self._received.popleft()

    def _without_noise(self, line: bytes, begin: bytes) -> bytes:
        """Report what stands before ``begin`` on a line, and return the rest."""
        place = line.find(begin)
        noise, rest = (line, b"") if place < 0 else (line[:place], line[place:])
        text = noise.decode("utf-8", "replace").strip()
        if text and self._on_noise is not None:
            self._on_noise(text)
        return rest


def greeting() -> str:
    """Say which dtm and which Python this is."""
    major, minor, *_ = sys.version_info
    return f"dtm {VERSION} on Python {major}.{minor}"


def hello() -> bytes:
    """Return the line that an agent says first."""
    return _HELLO + greeting().encode("ascii") + b"\n"


class Mailbox:
    """This side of a mailbox: two files that replace the standard streams of an agent.

    Args:
        theirs: the file that the other side writes.
        ours: the file that this side writes; made here.

    Attributes:
        reading, writing: the descriptors of two pipes, for a channel.
    """

    def __init__(self, theirs: str, ours: str) -> None:
        self._theirs = theirs
        self._ours = ours
        os.close(os.open(ours, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self.reading, self._followed = os.pipe()
        self._taken, self.writing = os.pipe()
        os.set_blocking(self._taken, False)

    async def append(self) -> None:
        """Append what is written to ``writing`` to our file, until it is closed."""
        data = _LAST
        try:
            while data:
                data = await read(self._taken)
                with suppress(OSError):  # the directory is gone: so is the run
                    descriptor = os.open(self._ours, os.O_WRONLY | os.O_APPEND)
                    try:
                        os.write(descriptor, data or _LAST)
                    finally:
                        os.close(descriptor)
        finally:
            os.close(self._taken)

    async def follow(self) -> None:
        """Pass on what the other side writes to ``reading``, until one of both has ended."""
        offset, data = 0, b""
        try:
            while not data.endswith(_LAST):
                data = self._look(offset)
                if data:
                    await ready(self._followed, write=True)
                    os.write(self._followed, data.removesuffix(_LAST))
                    offset += len(data)
                else:
                    await asyncio.sleep(LOOK_SECONDS)
        except OSError:  # nobody reads any more, or the directory is gone
            pass
        finally:
            os.close(self._followed)

    def _look(self, offset: int) -> bytes:
        try:
            descriptor = os.open(self._theirs, os.O_RDONLY)
        except FileNotFoundError:  # the other side is starting
            return b""
        try:
            return os.pread(descriptor, _PIECE, offset)
        finally:
            os.close(descriptor)


def mailbox_files(directory: str, host: str) -> tuple[str, str]:
    """Return the file that the agent of a host writes, and the one that it reads."""
    return os.path.join(directory, f"{host}.up"), os.path.join(directory, f"{host}.down")
