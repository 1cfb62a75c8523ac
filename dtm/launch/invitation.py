"""How a worker of a run over TCP learns of its run: an invitation, by an inherited socket.

Who starts a worker (:mod:`dtm.launch.processes`) passes on one end of a socket pair.  Its
number is in the environment, the secret of the run comes through it: neither a
command line nor an environment ever holds that.  At ``start`` the worker takes the
variable out (what a task starts is no worker), checks that who invited is its
parent (a program which it ran before joining finds the same variable), and reads
one line, which comes when the root listens.

The root is told at once.  It writes its address back, and goes on to read: each
further line names workers that have ended, and how.  Only who started them can
know that, and only the root has to.

Rejected: a file, which is there to be read by others until somebody removes it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dtm.errors import CommunicationError

INVITATION = "DTM_INVITATION"
_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a worker is told.

    Attributes:
        credentials: as text; the secret is in it.
        size: how many ranks the run has, free ones included.
        hosts: the host of each rank that is started for the run; the others are free.
        tls: whether connections are encrypted.
        rank: the worker's rank, None for a free one.
        address: of the root, None if this worker is to be the root.
        bind: the address by which others reach this host, None for itself only.
        ports: the first and the last port to listen at, None for any.
        carries_output: whether what the worker writes is brought home by who started it.
    """

    credentials: str
    size: int
    hosts: Sequence[str]
    tls: bool
    rank: int | None = None
    address: str | None = None
    bind: str | None = None
    ports: tuple[int, int] | None = None
    carries_output: bool = False

    def written(self) -> dict[str, Any]:
        """Return the fields, for messages."""
        return asdict(self)


def invited(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started as a worker of such a run."""
    return environ.get(INVITATION, "").endswith(f":{os.getppid()}")


def accept_invitation() -> tuple[Invitation, socket.socket, bytes] | None:
    """Take the invitation of this process, None if there is none.

    With it come the line to who invited it, and what has been read from there beyond.

    Raises:
        CommunicationError: who invited it is gone.
    """
    text = os.environ.get(INVITATION)
    if text is None or not invited():
        os.environ.pop(INVITATION, None)
        return None
    del os.environ[INVITATION]
    line_home = socket.socket(fileno=int(text.partition(":")[0]))
    line_home.set_inheritable(False)
    _write_lines_at_once()
    invitation, rest = _read(line_home)
    return invitation, line_home, rest


def _read(line_home: socket.socket) -> tuple[Invitation, bytes]:
    import json

    text = b""
    while b"\n" not in text:
        try:
            piece = line_home.recv(1 << 16)
        except OSError:
            piece = b""
        if not piece or len(text) > _LONGEST:
            raise CommunicationError("who started this worker has ended before the run began")
        text += piece
    line, _, rest = text.partition(b"\n")
    fields = json.loads(line)
    if fields is None:  # the root ended before its start: there will be no run
        sys.exit(0)
    return Invitation(**fields), rest


def _write_lines_at_once() -> None:
    """A pipe gets what a terminal would, when it would."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
