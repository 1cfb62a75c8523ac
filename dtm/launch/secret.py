"""The file by which the secret of a run reaches those who join by hand.

Only its owner can read it; it is there while the run lasts.

Used by the thread that leads the run.

Rejected: printing the secret.  What stands in a terminal ends up in logs.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress

from dtm.comm.tcp.credentials import Credentials


class SecretFile:
    """The credentials of a run in a file, from ``write`` to ``remove``."""

    def __init__(self, path: str | None, credentials: Credentials) -> None:
        self._credentials = credentials
        self.path = os.path.abspath(path or f"dtm-{credentials.run.hex()[:8]}.secret")
        self._written = False

    def write(self) -> None:
        """Make the file.

        Raises:
            CommunicationError: it is there already, or cannot be written.
        """
        self._credentials.to_file(self.path)
        self._written = True

    def remove(self) -> None:
        """Remove the file, if it was written."""
        if self._written:
            self._written = False
            with suppress(OSError):
                os.unlink(self.path)

    def how_to_join(self, address: str, slots: int, program: str) -> str:
        """Return what to tell the user, who may want to add workers."""
        options = f"--secret-file {shlex.quote(self.path)}"
        workers = "1 worker" if slots == 1 else f"{slots} workers"
        return (
            f"dtm: up to {workers} may join by hand:\n"
            f"dtm:   {shlex.quote(sys.executable)} -m dtm join {address} {options} {program}\n"
        )
