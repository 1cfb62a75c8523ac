"""Objects to frames and back.

The first frame is a pickle of protocol 5.  The frames behind it are the memory of
large buffers (64 KiB and more: arrays, mostly), not copied; smaller ones are part
of the pickle, since a frame of its own costs more than copying them.

The pickler is the one in C with ``reducer_override``: what the rules of
:mod:`dtm.wire.reductions` have something to say about (functions, classes, modules, some
others) goes by them, and all else at the speed of plain pickle.  What neither can
do goes to dill, in Python code and slower by a factor of ten, with the same rules on top.  All
write streams that ``loads`` reads alike, so a reader need not know which one it was.

Invariants: ``loads(dumps(x))`` has the type of ``x``, with the very class of it,
also when the class was made inside a function and the object went round through
other workers.  A large buffer that was writable is writable at its arrival.  The
frames share memory with the object: who changes an array while its frames are on
their way out sends a mixture.

Threads: any.

Rejected: dill for everything (a hundred times slower on small things); plain pickle first:
it sends classes made at run time by a name that the receiver does not have, and what the
metaclass has told ``copyreg`` makes a new class at each arrival.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from pickle import PickleBuffer
from typing import Any, Final

from dtm.comm.base import Frame
from dtm.errors import SerializationError
from dtm.wire.diagnosis import explain, first_failure
from dtm.wire.reductions import RefusedError, rules

LARGE: Final = 1 << 16
"""Buffers of this many bytes or more travel as frames of their own."""

MOST_REUSED: Final = 1 << 16  # bytes of a stream after which its pickler, grown large, is let go
MOST_FREE: Final = 16

calling_out: Final[set[int]] = set()
"""The threads in which objects' own methods run, called to pickle or to load them.  What is locked
meanwhile is locked by the same thread, which could change it: dtm cannot be called there."""

Definitions = dict[bytes, bytes]
OutOfBand = Callable[[PickleBuffer], Any]

_c_loads = pickle.loads


class _Lazy:
    """Makes an attribute of a pickler when a rule first needs it: few streams have functions."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        made = instance.__dict__[self._name] = self._make()
        instance.has_state = True
        return made


class Pickler(pickle.Pickler):
    """The pickler in C with the rules for code; see :class:`dtm.wire.reductions.Stream`."""

    definitions: Definitions | None = None
    defining = False
    has_state = False
    cells = _Lazy(set)
    stand_ins = _Lazy(dict)

    def drop_state(self) -> None:
        """Let go of what the rules have noted."""
        state = vars(self)
        for name in ("cells", "stand_ins", "has_state"):
            state.pop(name, None)

    def define(self, cls: type) -> bytes:
        """Return the stream that makes a class."""
        return define(cls)

    def reducer_override(self, obj: Any) -> Any:
        """Take an object apart by its rule, if there is one."""
        rule = rules[type(obj)]
        return NotImplemented if rule is None else rule(self, obj)


class _Writer:
    """A file that keeps what is written to it."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], None]) -> None:
        self.write = write


class Reusable(Pickler):
    """A pickler that makes the frames of one object after the other.

    To make a pickler, a file and a callback costs several times what a small object does.

    Attributes:
        pieces: of the stream, as they are written.
        buffers: of 64 KiB and more, left out of the stream.
    """

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.buffers: list[Frame] = []
        super().__init__(_Writer(self.pieces.append), 5, buffer_callback=self.keep_in_band)

    def keep_in_band(self, buffer: PickleBuffer) -> bool:
        """Whether a buffer is part of the stream."""
        if memoryview(buffer).nbytes < LARGE:
            return True
        self.buffers.append(buffer.raw())
        return False


idle_picklers: list[Reusable] = []
"""Picklers that nobody uses; taken and put back in one step each, by any thread."""


def dump(
    obj: Any,
    file: Any,
    out_of_band: OutOfBand | None = None,
    definitions: Definitions | None = None,
    *,
    defining: bool = False,
) -> None:
    """Write the pickle of an object to ``file``, by the pickler in C; raises what it raises."""
    pickler = Pickler(file, 5, buffer_callback=out_of_band)
    if definitions is not None:
        pickler.definitions = definitions
    if defining:
        pickler.defining = True
    pickler.dump(obj)


def dumps(obj: Any, definitions: Definitions | None = None) -> list[Frame]:
    """Return the frames of an object.

    The definitions of classes and code are part of them, unless ``definitions`` is given: then
    these are added there, by their keys, and whoever loads the frames must hold them.

    Raises:
        SerializationError: it cannot be pickled; the message says what of it, and why.
    """
    try:
        pickler = idle_picklers.pop()
    except IndexError:
        pickler = Reusable()
    pieces, buffers = pickler.pieces, pickler.buffers
    pickler.definitions = definitions
    whole = False
    try:
        pickler.dump(obj)
        whole = True
        stream = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return [stream, *buffers]
    except Exception as error:  # noqa: BLE001 - the object's own methods may raise anything
        buffers.clear()
        return [_last_resort(obj, error, pickler.keep_in_band), *buffers]
    finally:
        small = whole and len(pieces) == 1 and len(pieces[0]) < MOST_REUSED
        pickler.clear_memo()  # it keeps all that is in the stream alive
        pieces.clear()
        buffers.clear()
        pickler.definitions = None
        if pickler.has_state:
            pickler.drop_state()
        if small and len(idle_picklers) < MOST_FREE:
            idle_picklers.append(pickler)


def lasting(frames: Sequence[Frame]) -> list[Frame]:
    """Return frames to be sent again and again: the same objects, so memory is written once."""
    return [memoryview(frame) if memoryview(frame).nbytes >= LARGE else frame for frame in frames]


def changeable(frame: Frame) -> Frame:
    """Return memory that whoever loads the frame may change."""
    return bytearray(frame) if memoryview(frame).readonly else frame


def dumps_flat(obj: Any) -> bytes:
    """Return an object as one piece of bytes, to be kept or compared; raises as ``dumps``."""
    file = io.BytesIO()
    try:
        dump(obj, file)
        return file.getvalue()
    except Exception as error:  # noqa: BLE001 - the object's own methods may raise anything
        return _last_resort(obj, error, None)


def define(cls: type) -> bytes:
    """Return the stream that makes a class and what it refers to; raises what it raises."""
    file = io.BytesIO()
    try:
        dump(cls, file, defining=True)
        return file.getvalue()
    except RefusedError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return dump_by_dill(cls, error, defining=True)


def loads(frames: Sequence[Frame]) -> Any:
    """Return the object of these frames; raises what its class raises on being loaded."""
    if len(frames) == 1:
        return _c_loads(frames[0])
    return _c_loads(frames[0], buffers=[_writable(frame) for frame in frames[1:]])


def _writable(frame: Frame) -> Frame:
    # pickle itself makes those read-only again that were so at the sender.
    return bytearray(frame) if memoryview(frame).readonly else frame


def _last_resort(obj: Any, error: Exception, keep_in_band: OutOfBand | None) -> bytes:
    try:
        return dump_by_dill(obj, error, keep_in_band)
    except Exception as last:  # the object's own methods may raise anything
        raise SerializationError(explain(obj, last, _failure)) from last


def dump_by_dill(
    obj: Any, error: Exception, out_of_band: OutOfBand | None = None, *, defining: bool = False
) -> bytes:
    """Return the pickle that dill makes where the pickler in C has raised ``error``.

    Raises:
        Exception: ``error``, if dill cannot do better or cannot be imported; what dill raises.
    """
    if isinstance(error, (RefusedError, RecursionError)):
        raise error
    try:
        from dtm.wire.last_resort import dumps as dill_dumps
    except (ImportError, OSError) as missing:  # a task may have spoiled what imports need
        raise error from missing
    return dill_dumps(obj, define, out_of_band, defining=defining)


def culprit(items: Iterable[Any], base: int = 0) -> tuple[int, str] | None:
    """Return the index and the reason of the first item that cannot be pickled, if any.

    ``base`` is the index of the first item.  The reason reads like
    ``"TypeError: cannot pickle '_thread.lock' object (in .state['lock'])"``.
    """
    return first_failure(items, base, _failure)


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _failure(obj: Any) -> Exception | None:
    """Return why an object cannot be pickled, None if it can."""
    try:
        dump(obj, _Nowhere(), _leave_out)
    except Exception as error:  # noqa: BLE001 - the object's own methods may raise anything
        try:
            dump_by_dill(obj, error, _leave_out)
        except Exception as last:  # noqa: BLE001 - as above
            return last
    return None


def _leave_out(_buffer: PickleBuffer) -> bool:
    return False
