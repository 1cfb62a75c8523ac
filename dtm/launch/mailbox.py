"""Two files that stand for the standard input and output of an agent.

Some batch systems start a process on a host but pass nothing on to it, and put what it
writes where they see fit (``pbsdsh``).  Then each side appends its lines to one file and
follows the other, in a directory of the run that nobody else can enter and that all
hosts see.  To a channel it looks like two pipes.

    channel --pipe--> append to one file ... follow the other file --pipe--> channel

A file is opened anew at each look: file systems of clusters show what others have
written to whoever opens, not to whoever waits.  Nothing tells of the other side's
death but its silence, and the last line of a side that leaves.

Threads: the loop's.

Rejected: a socket.  Who may connect to it would have to be settled before there is a
secret on the other side.
"""

from __future__ import annotations

import os
from contextlib import suppress

from dtm.launch.loop import Loop

LOOK_SECONDS = 0.1
_LAST = b"\x04"  # in no message: JSON escapes it
_PIECE = 1 << 16


class Mailbox:
    """This side of a mailbox.

    Args:
        loop: calls back.
        theirs: the file that the other side writes.
        ours: the file that this side writes; made here.
    """

    def __init__(self, loop: Loop, theirs: str, ours: str) -> None:
        self._loop = loop
        self._theirs = theirs
        self._ours = ours
        self._offset = 0
        os.close(os.open(ours, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self.reading, self._followed = os.pipe()
        self._taken, self.writing = os.pipe()
        os.set_blocking(self._followed, False)
        loop.read(self._taken, self._append)
        loop.later(0.0, self._follow)

    def _append(self) -> None:
        data = os.read(self._taken, _PIECE)
        with suppress(OSError):  # the directory is gone: so is the run
            descriptor = os.open(self._ours, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(descriptor, data or _LAST)
            finally:
                os.close(descriptor)
        if not data:
            self._loop.read(self._taken, None)
            os.close(self._taken)

    def _follow(self) -> None:
        """Pass on what the other side has written since the last look."""
        try:
            data = self._read()
            while data and not data.endswith(_LAST):
                written = os.write(self._followed, data)
                self._offset += written
                data = self._read()
        except BlockingIOError:  # the channel is behind; what is left stays in the file
            data = b""
        except OSError:  # nobody reads any more
            data = _LAST
        if data.endswith(_LAST):
            self._finish(data.removesuffix(_LAST))
        else:
            self._loop.later(LOOK_SECONDS, self._follow)

    def _finish(self, rest: bytes) -> None:
        with suppress(OSError):
            if rest:
                os.write(self._followed, rest)
        os.close(self._followed)

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self._theirs, os.O_RDONLY)
        except FileNotFoundError:  # the other side is starting
            return b""
        try:
            return os.pread(descriptor, _PIECE >> 4, self._offset)
        finally:
            os.close(descriptor)


def paths(directory: str, host: str) -> tuple[str, str]:
    """Return the file that the agent of a host writes, and the one that it reads."""
    return os.path.join(directory, f"{host}.up"), os.path.join(directory, f"{host}.down")
