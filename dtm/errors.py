"""Every error that dtm itself raises.

One root class, so that ``except DtmError`` catches what the library has to say
and nothing of the user's.  Exceptions of user functions are not wrapped: they
arrive at the caller with their own type (see :mod:`dtm.wire.pickling`), the
traceback of the worker as their cause.

Rejected: error codes on one class.  Callers select by ``except``, and a class a
cause lets each say what to do about it.
"""

from __future__ import annotations


class DtmError(Exception):
    """Root of all errors of dtm."""


class OptionError(DtmError, ValueError):
    """An option is unknown, has an impossible value, or comes too late."""


class RunStateError(DtmError, RuntimeError):
    """A function of dtm was called at a time or from a place where it cannot work."""


class ResultNotReadyError(DtmError, ValueError, AssertionError):
    """``successful()`` was asked of a call that has not ended.

    A ``ValueError`` as in :mod:`multiprocessing` since Python 3.7, and an
    ``AssertionError`` as in DEAP's dtm and in older Pythons.
    """


class ItemTimeoutError(DtmError, TimeoutError):
    """An item took longer than ``dtm.options(timeout=...)`` allows.

    Attributes:
        index: which item of its call; None where that is not known.
    """

    index: int | None = None


class InitializerError(DtmError):
    """An initializer failed, or called dtm; the message says which, why and on what worker.

    Its ``__cause__`` is what the initializer raised, with the traceback of that worker.
    """


class CallCancelledError(DtmError):
    """The result was asked for of a call that ``AsyncResult.cancel()`` has dropped."""


class SerializationError(DtmError):
    """An object cannot travel between workers; the message names it and says why."""


class WorkerLostError(DtmError):
    """A worker died, so the run cannot go on.

    The message names the rank, the host and, where it can be known, the signal.
    """


class CommunicationError(DtmError):
    """A communication manager cannot start, or broke its contract."""


class UnreachableError(CommunicationError):
    """The root of a run does not answer: it has ended, or the way to it is closed."""


class StrangerError(CommunicationError):
    """Whoever is at the other end of a connection did not prove to belong to this run."""


class InvariantError(DtmError):
    """dtm found its own state to be impossible: a bug in dtm; the run stops."""


class TraceError(DtmError):
    """A recorded run cannot be read, or does not hold what is asked of it."""


class Unsendable(Exception):  # noqa: N818 - a signal between two modules, not an error of the user's
    """A range cannot be sent: the item to blame, None if it is the function, and why."""

    def __init__(self, index: int | None, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


class RemoteTraceback(Exception):  # noqa: N818 - a carrier of text, never raised by itself
    """The traceback of a worker as text: the ``__cause__`` of an exception that travelled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text
