"""The user's terminal: what workers have written comes out here, in whole lines.

A thread writes, since a terminal that is stopped (Ctrl-S), or a pipe whose reader takes its time,
blocks; the pulses of a run must not wait for that.  While too much waits to be written, ``room``
is not set, and nothing more is read from the workers.

Threads: ``write`` and ``close`` are for the thread of the event loop; the thread here only takes
from the queue.

Rejected: descriptors that do not block.  They are shared with the user's shell, and with the
program at the other end of a pipe.  Also an executor of ``asyncio``: its threads are waited for at
the end, however long a stopped terminal blocks them.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_NOBODY_READS = 128 + signal.SIGPIPE  # what a shell would see of a program so ended
_MOST = 8 << 20  # bytes that wait to be written before workers are read no more


class Terminal:
    """The standard streams of the launcher.

    Args:
        tag: what stands before each line of a rank, None for nothing.
        on_broken: called, in the event loop, when nothing more can be written, with the exit
            status that this calls for; what is wrong, if it is not that nobody reads, has been
            said.

    Attributes:
        room: set unless more waits to be written than should.
    """

    def __init__(
        self, tag: Callable[[int], str] | None, on_broken: Callable[[int], object]
    ) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self._tag = tag
        self._on_broken = on_broken
        self._queue: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._something = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def write(self, rank: int, stream: str, text: str) -> None:
        """Write whole lines of a worker; a line that has no end gets one if it is tagged."""
        if self._tag is not None:
            before = self._tag(rank)
            text = "".join(f"{before}{line}\n" for line in text.removesuffix("\n").split("\n"))
        data = text.encode("utf-8", "surrogateescape")
        with self._something:
            self._queue.append((stream, data))
            self._bytes += len(data)
            if self._bytes > _MOST:
                self.room.clear()
            self._something.notify()
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._serve, name="dtm-terminal", daemon=True)
            self._thread.start()

    def close(self, timeout: float) -> None:
        """Wait until all is written, for so long at most."""
        with self._something:
            self._closing = True
            self._something.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _serve(self) -> None:
        streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        outputs = {name: stream.buffer for name, stream in streams.items() if stream is not None}
        while True:
            with self._something:
                while not self._queue and not self._closing:
                    self._something.wait()
                if not self._queue:
                    return
                name, data = self._queue.popleft()
                self._bytes -= len(data)
                if self._bytes <= _MOST and not self.room.is_set():
                    self._call(self.room.set)
            if name not in outputs:  # closed from the start
                continue
            try:
                outputs[name].write(data)
                outputs[name].flush()
            except OSError as error:
                self._call(self._on_broken, _status(name, error))
                return

    def _call(self, act: Callable[..., object], *arguments: int) -> None:
        """Have something done in the event loop."""
        with suppress(RuntimeError):  # the loop is closed: the run is over
            self._loop.call_soon_threadsafe(act, *arguments)


def _status(name: str, error: OSError) -> int:
    """Say what is wrong with a stream, and return the exit status that it calls for."""
    if isinstance(error, BrokenPipeError):
        return _NOBODY_READS
    with suppress(OSError):  # the same stream, say
        sys.stderr.write(f"dtm: {name} cannot be written, so the run ends: {error.strerror}\n")
    return 1
