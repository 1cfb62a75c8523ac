"""What tasks print: whole lines, on the root's terminal.

While a run lasts, ``sys.stdout`` and ``sys.stderr`` of each worker are
:class:`Lines`, which gathers what each thread writes and passes on whole lines:
the root writes them to its own streams, one writer at a time, the others send
them to the root.  What C code or a child process writes goes where it always
went.  If the program of the root puts another stream there meanwhile (a test that captures what is
printed), what others have printed goes to that one.

A child that a task forks writes to the streams that were there: it is no worker.  They are flushed
before the fork, or what they hold would come out twice.

Shared attributes: ``Lines._partial`` is changed by any thread, each at its own key; what is written
to the streams of the root is ordered by ``Output._lock``.

Threads: any.

Rejected: a pipe for each worker that the root reads.  It catches C code as well,
but works only where the root has started the workers, so not under MPI.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO
from weakref import WeakSet

Emit = Callable[[str, str], None]


class Lines(io.TextIOBase):
    """A text stream that passes on whole lines.

    Args:
        name: ``"stdout"`` or ``"stderr"``.
        inner: the stream it stands for; asked for everything but writing.
        emit: takes the name and the text of whole lines.
        eager: whether ``flush`` passes on a line that has not ended.
    """

    def __init__(self, name: str, inner: TextIO, emit: Emit, *, eager: bool) -> None:
        super().__init__()
        self._name = name
        self._inner = inner
        self._emit = emit
        self._eager = eager
        self._partial: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Take text; pass on the lines that are whole."""
        thread = threading.get_ident()
        whole = self._partial.pop(thread, "") + text
        cut = whole.rfind("\n") + 1
        if cut < len(whole):
            self._partial[thread] = whole[cut:]
        if cut:
            self._emit(self._name, whole[:cut])
        return len(text)

    def flush(self) -> None:
        """Pass on the line under way, if this stream is eager."""
        if self._eager:
            self._pass_on(threading.get_ident())
            self._inner.flush()

    def finish(self) -> None:
        """Pass on the lines under way, of all threads."""
        for thread in list(self._partial):
            self._pass_on(thread)

    def _pass_on(self, thread: int) -> None:
        text = self._partial.pop(thread, "")
        if text:
            self._emit(self._name, text)

    def writable(self) -> bool:
        """Text can be written."""
        return True

    def isatty(self) -> bool:
        """Say what the stream behind says."""
        return self._inner.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream behind."""
        return self._inner.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind."""
        return self._inner.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Output:
    """The standard streams of this process, redirected while a run lasts.

    Args:
        emit: takes whole lines; None writes them to the streams that were there.
    """

    def __init__(self, emit: Emit | None = None) -> None:
        self._lock = threading.Lock()
        self._streams: dict[str, TextIO] = {"stdout": sys.stdout, "stderr": sys.stderr}
        eager = emit is None
        self._lines = {
            name: Lines(name, stream, emit or self.write, eager=eager)
            for name, stream in self._streams.items()
            if stream is not None
        }
        for name, lines in self._lines.items():
            self._streams[name].flush()
            setattr(sys, name, lines)
        redirected.add(self)

    def write(self, name: str, text: str) -> None:
        """Write whole lines to the stream that was there, or to the one that is there now."""
        now: Any = getattr(sys, name)
        stream = self._streams[name] if now is self._lines.get(name) else now
        if stream is not None:
            with self._lock:
                stream.write(text)

    def finish(self) -> None:
        """Pass on all lines under way."""
        for lines in self._lines.values():
            lines.finish()

    def restore(self) -> None:
        """Put the streams back."""
        redirected.discard(self)
        for name, lines in self._lines.items():
            lines.finish()
            if getattr(sys, name) is lines:
                setattr(sys, name, self._streams[name])
            with suppress(ValueError):  # somebody has closed it meanwhile
                self._streams[name].flush()

    # Forks.

    def before_fork(self) -> None:
        """Let nobody write while the process forks, and leave nothing to write twice."""
        self._lock.acquire()
        for stream in self._streams.values():
            if stream is not None:
                with suppress(ValueError):
                    stream.flush()

    def after_fork(self) -> None:
        """(In the parent) let others write again."""
        self._lock.release()

    def leave_to_the_parent(self) -> None:
        """(In the child) put the streams back; the lines under way are the parent's."""
        self._lock = threading.Lock()
        for name, lines in self._lines.items():
            if getattr(sys, name) is lines:
                setattr(sys, name, self._streams[name])


redirected: WeakSet[Output] = WeakSet()


def _all(do: Callable[[Output], None]) -> Callable[[], None]:
    def each() -> None:
        for output in tuple(redirected):
            do(output)

    return each


os.register_at_fork(
    before=_all(Output.before_fork),
    after_in_parent=_all(Output.after_fork),
    after_in_child=_all(Output.leave_to_the_parent),
)
