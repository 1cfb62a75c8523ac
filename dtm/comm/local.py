"""Processes of one machine, joined by Unix sockets.

The root makes a private directory with one listening socket for each worker,
before it starts any; a worker inherits its own.  So a worker that is still
starting can be called already: the connection waits in the kernel.  The stream
between the root and a worker is a socket pair made before the start.  Workers
call each other when they first have something to say.

What becomes of the socket's file says how its worker ended: a worker that leaves
removes it, so nobody is there to be called; a file that refuses connections
belonged to a worker that died.

Death is told by pidfds, which a forked grandchild with a copy of the sockets
cannot hide; the end of a stream tells the same where there are none.  The root
knows the status of each child, so its report is the one to believe.

Threads: as in :mod:`dtm.comm.stream_manager`; all attributes here are under the caller's lock.
``wait`` reads ``_root_is_watched`` without it, which does not change after the constructor.

Rejected: sockets in the abstract namespace (no file to remove, but any user of
the machine may connect), and one socket pair for each pair of workers (n * n
descriptors, nearly all of them for nothing).
"""

# pathlib takes longer to import than all of this module does.

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from functools import partial
from io import FileIO
from time import monotonic
from typing import TYPE_CHECKING

from dtm.comm.child import Child, end
from dtm.comm.stream import FramedStream
from dtm.comm.stream_manager import Received, StreamManager
from dtm.errors import CommunicationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from subprocess import Popen

_LONGEST_PATH = 100  # of an address; systems allow 104 or 108 bytes
_CONNECT = struct.pack("@ll", 5, 0)  # seconds and microseconds
_SEND_BUFFER = 400_000  # twice the usual: measured 3.4 GB/s instead of 2.0 for 64 MB frames
_EXIT = 0.1  # a dying process closes its sockets shortly before it can be reaped
_ORPHAN_LOOK = 1.0


def make_directory() -> str:
    """Make the private directory of a run, at a path that is short enough for addresses."""
    for place in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", os.curdir):  # noqa: S108 - as tempfile
        if not place:
            continue
        path = os.path.join(place, f"dtm-{os.urandom(8).hex()}")
        if len(os.fsencode(path)) + len("/1000000") > _LONGEST_PATH:
            continue
        with suppress(OSError):
            os.mkdir(path, 0o700)
            return path
    message = "no place for the sockets of a local run: neither TMPDIR nor /tmp can be written"
    raise CommunicationError(message)


def remove_directory(path: str) -> None:
    """Remove the directory of a run, as far as it is still there."""
    with suppress(OSError):
        for name in os.listdir(path):
            with suppress(OSError):
                os.unlink(os.path.join(path, name))
        os.rmdir(path)


def listen(directory: str, rank: int, size: int) -> socket.socket:
    """Return the socket that a worker will accept its peers from."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(_address(directory, rank))
    listener.listen(size)
    return listener


def _address(directory: str, rank: int) -> str:
    return os.path.join(directory, str(rank))


class LocalManager(StreamManager):
    """The part of the manager that the root and the workers share."""

    def __init__(self, rank: int, size: int, directory: str) -> None:
        super().__init__(rank, size, (os.uname().nodename,) * size)
        self._directory = directory

    def _link(self, connection: socket.socket, peer: int, *, greeted: bool) -> FramedStream:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        stream = FramedStream(connection, peer, greeted=greeted)
        self._adopt(stream)
        return stream

    def _connect(self, rank: int) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # Immediate, unless more peers are waiting than the kernel lets queue.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _CONNECT)
        try:
            connection.connect(_address(self._directory, rank))
        except FileNotFoundError:
            connection.close()
            return None
        except OSError:
            connection.close()
            raise
        return connection

    def _admit(self, connection: socket.socket) -> bool:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if not hasattr(socket, "SO_PEERCRED"):
            return True  # the directory lets nobody else in
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        user: int = struct.unpack("3i", credentials)[1]
        return user == os.geteuid()


class LocalRoot(LocalManager):
    """The manager of rank 0, which has started the workers and ends them."""

    alters_threads = True

    def __init__(
        self,
        directory: str,
        links: Mapping[int, socket.socket],
        processes: Mapping[int, Popen[bytes]],
    ) -> None:
        super().__init__(0, len(links) + 1, directory)
        self._children = {rank: Child(process) for rank, process in processes.items()}
        self._links = {
            rank: self._link(connection, rank, greeted=False) for rank, connection in links.items()
        }
        for rank, child in self._children.items():
            if child.watchable:
                self._watch(child, partial(self._ended, rank))

    def close(self, timeout: float) -> None:
        """Leave, and end what was started: who never joined at once, who joined in time."""
        deadline = monotonic() + timeout
        self.receive()
        late = self._late()
        for rank in late:
            self._children[rank].process.terminate()
            self._drop(self._links[rank])
        end(self._children[rank] for rank in late)
        children = self._children.values()
        self._sources.difference_update(children)  # still needed when the streams are closed
        super().close(max(0.0, deadline - monotonic()))
        for child in children:
            child.wait(deadline - monotonic())
        end(children)
        for child in children:
            child.close()
        remove_directory(self._directory)

    def absent(self) -> set[int]:
        """Return the workers that are still starting, and those that are gone."""
        return self._gone.union(self._late())

    def _late(self) -> list[int]:
        return [rank for rank, link in self._links.items() if not link.greeted]

    def abort(self, status: int) -> None:
        """End all processes of the run at once, this one too.  From any thread."""
        for child in self._children.values():
            child.process.kill()
        remove_directory(self._directory)
        os._exit(status)

    def _ended(self, rank: int, received: Received) -> None:
        """Take what a process said before it ended, then report it."""
        child = self._children[rank]
        link = self._links[rank]
        self._read_all(link, received)
        self._unwatch(child)
        if not link.orderly:
            self._lose(rank, self._explain(rank, link.error))

    def _explain(self, rank: int, error: OSError | None) -> str:  # noqa: ARG002 - its process tells
        child = self._children[rank]
        child.wait(_EXIT)
        outcome = child.outcome() or "its connection ended while its process goes on"
        return outcome if self._links[rank].greeted else f"{outcome} before it joined the run"


class LocalWorker(LocalManager):
    """The manager of any other rank, which removes the run's directory if the root dies."""

    def __init__(
        self,
        rank: int,
        size: int,
        directory: str,
        listener: socket.socket,
        root: socket.socket,
        root_process: int,
    ) -> None:
        super().__init__(rank, size, directory)
        self._root_process = root_process
        self._listen(listener)
        self._root = self._link(root, 0, greeted=True)
        self.send(0, [rank.to_bytes(4, "little")])
        self._root_is_watched = self._watch_root()

    def receive(self) -> Received:
        """Read what has come, and notice when the root is dead."""
        received = super().receive()
        if not self._root_is_watched and os.getppid() != self._root_process:
            self._root_died(received)
        return received

    def wait(self, timeout: float) -> None:
        """Wait; where nothing tells of the root's death, for a second at most."""
        super().wait(timeout if self._root_is_watched else min(timeout, _ORPHAN_LOOK))

    def close(self, timeout: float) -> None:
        """Leave: from here on nobody finds this worker's address."""
        with suppress(OSError):
            os.unlink(_address(self._directory, self.rank))
        super().close(timeout)
        if 0 in self._gone:  # and perhaps killed before it came to this
            remove_directory(self._directory)

    def _watch_root(self) -> bool:
        if not hasattr(os, "pidfd_open"):
            return False
        try:
            root = FileIO(os.pidfd_open(self._root_process))
        except OSError:  # an old kernel, a sandbox; or the root is dead, which `getppid` tells
            return False
        self._watch(root, lambda received: self._root_ended(root, received))
        return os.getppid() == self._root_process

    def _root_ended(self, pidfd: FileIO, received: Received) -> None:
        self._unwatch(pidfd)
        self._root_died(received)

    def _root_died(self, received: Received) -> None:
        """Take what the root said before it died, then report it."""
        self._read_all(self._root, received)
        if not self._root.orderly:
            self._lose(0, self._explain(0, self._root.error))

    def _lose(self, rank: int, reason: str) -> None:
        if rank == 0 and rank not in self._gone:
            remove_directory(self._directory)
        super()._lose(rank, reason)

    def _explain(self, rank: int, error: OSError | None) -> str:
        return "its process has ended" if rank == 0 else super()._explain(rank, error)
