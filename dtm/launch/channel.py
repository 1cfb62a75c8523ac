"""A channel: messages over a pair of descriptors, an agent's standard input and output.

What the other side does not take at once is queued.  ``on_message`` gets each
message, ``on_end`` the reason when nothing more can come: the end of the file, or
bytes that are no message.  Both are called in the loop.

Before its first message an agent writes one line that says who it is, its *hello*.
Others write to its standard output too: shells greet, or ask, with no end of the line,
and a message to all users may come at any time.  So what stands before a message, or on a
line of its own, is *noise*: reported, and passed over.  An agent's input is the launcher's
alone, and has none.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable

from dtm.errors import CommunicationError
from dtm.launch.loop import Loop
from dtm.launch.messages import BEGIN, LONGEST, Lines, Message, decode, encode
from dtm.version import VERSION

_READ = 1 << 18
_HELLO = b"dtm-agent "


class Channel:
    """Messages to and from one process.

    Args:
        loop: calls back.
        reading, writing: the descriptors, which are the channel's from now on.
        on_message, on_end: what to do with a message, and at the end.
        on_hello: takes the line that an agent says first; None if none is expected.
        on_noise: takes what others have written; None if that is an error.
    """

    def __init__(
        self,
        loop: Loop,
        reading: int,
        writing: int,
        on_message: Callable[[Message], object],
        on_end: Callable[[str], object],
        on_hello: Callable[[str], object] | None = None,
        on_noise: Callable[[str], object] | None = None,
    ) -> None:
        self._loop = loop
        self._reading = reading
        self._writing = writing
        self._on_message = on_message
        self._on_end = on_end
        self._on_hello = on_hello
        self._on_noise = on_noise
        self._lines = Lines(LONGEST, strict=True)
        self._queue: deque[memoryview] = deque()
        self._closing = False
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        loop.read(reading, self._receive)

    def send(self, message: Message) -> None:
        """Send a message, or queue what cannot be written now."""
        self.send_line(encode(message))

    def send_line(self, line: bytes) -> None:
        """Send a message that is encoded already."""
        if self._writing < 0 or self._closing:
            return
        self._queue.append(memoryview(line))
        if len(self._queue) == 1:
            self._flush()

    @property
    def queued(self) -> int:
        """How many messages wait to be written."""
        return len(self._queue)

    def pause(self, *, reading: bool) -> None:
        """Cease to read, or go on."""
        if self._reading >= 0:
            self._loop.read(self._reading, self._receive if reading else None)

    def rest(self) -> str:
        """Take out what has come of a line that has not ended."""
        return self._lines.rest().decode("utf-8", "replace").strip()

    def close_output(self) -> None:
        """Tell the other side that nothing more will come, once all is written."""
        self._closing = True
        if not self._queue:
            self._drop_output()

    def close(self) -> None:
        """Let go of both descriptors."""
        self._drop_output()
        if self._reading >= 0:
            self._loop.read(self._reading, None)
            os.close(self._reading)
            self._reading = -1

    def _drop_output(self) -> None:
        self._queue.clear()
        if self._writing >= 0:
            self._loop.write(self._writing, None)
            os.close(self._writing)
            self._writing = -1

    def _flush(self) -> None:
        try:
            while self._queue:
                written = os.write(self._writing, self._queue[0])
                if written == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = self._queue[0][written:]
        except BlockingIOError:
            self._loop.write(self._writing, self._flush)
        except OSError:  # nobody reads; that its output ends too will tell
            self._drop_output()
        else:
            self._loop.write(self._writing, None)
            if self._closing:
                self._drop_output()

    def _receive(self) -> None:
        try:
            data = os.read(self._reading, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._finish("the connection ended")
            return
        try:
            for line in self._lines.feed(data).splitlines():
                self._take(line)
        except CommunicationError as error:
            self._finish(str(error))

    def _take(self, line: bytes) -> None:
        if self._reading < 0:  # closed by what came before
            return
        if self._on_noise is not None:
            line = self._without_noise(line)
        if self._on_hello is None:
            if line or self._on_noise is None:
                self._on_message(decode(line))
        elif line.startswith(_HELLO):
            on_hello, self._on_hello = self._on_hello, None
            on_hello(line[len(_HELLO) :].decode("ascii", "replace").strip())

    def _without_noise(self, line: bytes) -> bytes:
        """Report what stands before a message on its line, and return the rest."""
        begin = line.find(BEGIN if self._on_hello is None else _HELLO)
        noise, rest = (line, b"") if begin < 0 else (line[:begin], line[begin:])
        text = noise.decode("utf-8", "replace").strip()
        if text and self._on_noise is not None:
            self._on_noise(text)
        return rest

    def _finish(self, reason: str) -> None:
        self.close()
        self._on_end(reason)


def greeting() -> str:
    """Say which dtm and which Python this is."""
    major, minor, *_ = sys.version_info
    return f"dtm {VERSION} on Python {major}.{minor}"


def hello() -> bytes:
    """Return the line that an agent says first."""
    return _HELLO + greeting().encode("ascii") + b"\n"
