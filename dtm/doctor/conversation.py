"""A conversation with a command, line by line, which is over by a set time.

Whatever the command does, nobody waits for it longer; if it has not ended by then,
its whole process group is ended.  What it writes to standard error goes to a file, so that it
can never stand still because nobody reads there.

Used by one thread.

Rejected: ``subprocess.run(timeout=…)``.  It kills the command alone, then waits for
ever on the pipes that the command's children hold open.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import PIPE, Popen, TimeoutExpired
from tempfile import TemporaryFile
from time import monotonic
from types import TracebackType

_MOST_ERROR = 4000
_REAP_SECONDS = 1.0  # after each signal


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command.

    Attributes:
        status: how it ended, None if it could not be started or did not end in time.
        output: what it wrote, or what of that was not heard line by line.
        error: what it wrote to standard error, or why it could not be started.
        late: whether it did not end in time.
    """

    status: int | None
    output: str
    error: str
    late: bool = False


class Conversation:
    """A command that runs; to be used in a ``with`` statement."""

    def __init__(
        self, command: Sequence[str], seconds: float, environ: Mapping[str, str] | None = None
    ) -> None:
        self._deadline = monotonic() + seconds
        self._heard = bytearray()
        self._errors = TemporaryFile()  # noqa: SIM115 - closed in __exit__
        try:
            self._process = Popen(  # noqa: S603 - what the doctor runs, its callers build
                command,
                env=environ,
                stdin=PIPE,
                stdout=PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            raise

    def __enter__(self) -> Conversation:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:  # its number may be another's by now
                break
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with suppress(TimeoutExpired):
                self._process.wait(_REAP_SECONDS)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(self._deadline - monotonic(), 0.0)

    def say(self, text: str) -> bool:
        """Write to the command; return whether it took all of it in time."""
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        os.set_blocking(descriptor, False)
        rest = text.encode()
        while rest:
            if not select.select([], [descriptor], [], self.left)[1]:
                return False
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BrokenPipeError:
                return False
        return True

    def hear(self) -> str | None:
        """Return the next line, without its end; None if there is none in time."""
        while b"\n" not in self._heard:
            if not self._read():
                return None
        line, _, rest = self._heard.partition(b"\n")
        self._heard = rest
        return line.decode(errors="replace")

    def end(self) -> Answer:
        """Say no more, listen to the rest, and return what became of the command."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        while self._read():
            pass
        try:
            status: int | None = self._process.wait(self.left)
        except TimeoutExpired:
            status = None
        self._errors.seek(0)
        error = self._errors.read()[-_MOST_ERROR:].decode(errors="replace").strip()
        return Answer(status, self._heard.decode(errors="replace"), error, status is None)

    def _read(self) -> bool:
        """Read what has come, or wait for it; return whether there was anything."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        if not select.select([descriptor], [], [], self.left)[0]:
            return False
        got = os.read(descriptor, 1 << 16)
        self._heard += got
        return bool(got)


def ask(command: Sequence[str], seconds: float, environ: Mapping[str, str] | None = None) -> Answer:
    """Run a command to its end, for so long at most."""
    try:
        with Conversation(command, seconds, environ) as talk:
            return talk.end()
    except OSError as error:
        return Answer(None, "", str(error))
