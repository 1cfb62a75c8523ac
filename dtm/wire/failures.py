"""Exceptions that travel: what a task raised is raised at its caller.

A failure is packed into bytes where it happened and unpacked where it is waited for.
It arrives with its own type, the traceback of the worker as text in its
``__cause__``, and a note that says which item, of what, and where.

Many exceptions do not survive pickle: their constructor wants other arguments than
``args``, or they hold a lock or a frame.  So each way is tried at the sender, by
loading what was dumped, and the best one that works is sent:

1. the exception as it pickles itself;
2. its class and what it holds, put together without calling its constructor;
   what cannot be pickled of it becomes its ``repr``;
3. the nearest of its base classes that can travel, with the text of the original.

Invariants: neither function raises, whatever the exception does in its own methods
(``except BaseException`` has its place here: ``SystemExit`` from a ``__reduce__``
must not end a worker).  The text is bounded, and so is the depth of groups.

Threads: any.

Rejected: to wrap everything in one ``RemoteError``.  The program's own ``except``
clauses would no longer fit, and a map must fail like the loop that it replaces.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from traceback import format_exception
from typing import Any, Final

from dtm.comm.base import Frame
from dtm.errors import RemoteTraceback, SerializationError
from dtm.wire.exceptions import Parts, arguments_of, assemble, state_of
from dtm.wire.pickling import dumps_flat, loads

TEXT_LIMIT: Final = 1 << 16
"""The longest traceback that is sent, in characters; of a longer one, both ends."""

_REPR_LIMIT = 1000
_GROUP_DEPTH = 8


def pack_failure(exc: BaseException, index: int | None, where: str) -> bytes:
    """Return the exception as bytes.

    ``where`` reads on from "in item 7 of", as in ``"map(op), on worker 3 (host)"``;
    without an ``index`` the note is "in " and ``where``.
    """
    text = traceback_text(exc)
    note = f"in {where}" if index is None else f"in item {index} of {where}"
    content = _first_that_loads(exc)
    return pickle.dumps((content, text, note), 5)


def unpack_failure(packed: Frame) -> BaseException:
    """Return the exception, ready to be raised.

    One that cannot be loaded here gives a ``SerializationError`` which says so.
    """
    content, text, note = pickle.loads(packed)
    try:
        exc = _load(content)
    except BaseException as error:  # noqa: BLE001 - see the header
        last = text.rstrip().rpartition("\n")[2]
        message = f"an exception cannot be loaded here ({_describe(error)}): {last}"
        exc = SerializationError(message)
    object.__setattr__(exc, "__cause__", RemoteTraceback(text))
    annotate(exc, note)
    return exc


def annotate(exc: BaseException, text: str) -> None:
    """Add a note to an exception, unless it has it already; never raises."""
    try:
        notes = getattr(exc, "__notes__", None)
        if not isinstance(notes, list):
            notes = []
            object.__setattr__(exc, "__notes__", notes)  # whatever __setattr__ the class has
        if text not in notes:
            notes.append(text)
    except Exception:  # noqa: BLE001 - an exception that takes no attribute has no note
        return


def _first_that_loads(exc: BaseException) -> bytes:
    for attempt in (_as_it_pickles, _put_together, _as_a_base):
        try:
            return attempt(exc)
        except BaseException:  # noqa: BLE001, S112 - see the header; the next way serves
            continue
    return dumps_flat((_plain, (Exception, _description(exc), [])))


def _load(content: bytes) -> BaseException:
    make, arguments = loads([content])
    exc = make(*arguments)
    if not isinstance(exc, BaseException):
        message = f"{type(exc).__qualname__} is no exception"
        raise TypeError(message)
    return exc


def _as_it_pickles(exc: BaseException) -> bytes:
    content = dumps_flat((_itself, (exc,)))
    loaded = _load(content)
    # A constructor may take its own message for an argument, and tell it twice.
    if type(loaded) is not type(exc) or str(loaded) != str(exc):
        message = "it does not survive its own constructor"
        raise SerializationError(message)
    return content


def _itself(exc: BaseException) -> BaseException:
    return exc


def _put_together(exc: BaseException) -> bytes:
    content = dumps_flat((assemble, _pieces(exc, _GROUP_DEPTH)))
    if type(_load(content)) is not type(exc):
        message = "it does not keep its type"
        raise SerializationError(message)
    return content


def _pieces(exc: BaseException, depth: int) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
    """Return the class, the arguments and the attributes, such that all can be pickled."""
    members = _members(exc)
    if members and depth > 0:
        parts = [_pieces_or_base(member, depth - 1) for member in members]
        arguments: tuple[Any, ...] = (_safe(exc.args[0]), Parts(parts))
    else:
        arguments = tuple(_safe(argument) for argument in arguments_of(exc))
    return type(exc), arguments, {name: _safe(value) for name, value in state_of(exc).items()}


def _pieces_or_base(exc: BaseException, depth: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    try:
        pieces = _pieces(exc, depth)
        if type(_load(dumps_flat((assemble, pieces)))) is type(exc):
            return assemble, pieces
    except BaseException:  # noqa: BLE001, S110 - see the header
        pass
    return _plain, _base_of(exc)


def _members(exc: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a group."""
    return exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()


def _safe(value: Any) -> Any:
    """Return the value if it can be pickled and loaded, else its text."""
    try:
        loads([dumps_flat(value)])
    except BaseException:  # noqa: BLE001 - see the header
        return _repr(value)
    return value


def _as_a_base(exc: BaseException) -> bytes:
    return dumps_flat((_plain, _base_of(exc)))


def _base_of(exc: BaseException) -> tuple[type[BaseException], str, list[str]]:
    """Return the nearest base that can travel with one text, the text, and the notes."""
    text = _description(exc)
    notes = [str(note) for note in getattr(exc, "__notes__", None) or ()]
    notes.append(f"was {_name(type(exc))}, which cannot be sent from worker to worker")
    for base in type(exc).__mro__:
        try:
            arguments = (base, text, notes)
            if type(_load(dumps_flat((_plain, arguments)))) is base:
                return arguments
        except BaseException:  # noqa: BLE001, S112 - see the header
            continue
    return Exception, text, notes


def _plain(cls: type[BaseException], text: str, notes: list[str]) -> BaseException:
    exc = cls(text)
    for note in notes:
        annotate(exc, note)
    return exc


def traceback_text(exc: BaseException) -> str:
    """Return the traceback of an exception, and of its causes, as bounded text; never raises."""
    try:
        text = "".join(format_exception(type(exc), exc, exc.__traceback__))
    except BaseException:  # noqa: BLE001 - see the header
        text = _description(exc)
    if len(text) > TEXT_LIMIT:
        half = TEXT_LIMIT // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def _description(exc: BaseException) -> str:
    try:
        text = str(exc)
    except BaseException:  # noqa: BLE001 - see the header
        text = ", ".join(_repr(argument) for argument in exc.args)
    return f"{_name(type(exc))}: {_cut(text)}"


def _describe(error: BaseException) -> str:
    try:
        return _cut(f"{type(error).__name__}: {error}")
    except BaseException:  # noqa: BLE001 - see the header
        return type(error).__name__


def _repr(value: Any) -> str:
    try:
        return _cut(repr(value))
    except BaseException:  # noqa: BLE001 - see the header
        return f"<{_name(type(value))} object>"


def _cut(text: str) -> str:
    return text if len(text) <= _REPR_LIMIT else text[: _REPR_LIMIT - 3] + "..."


def _name(cls: type) -> str:
    module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return module + cls.__qualname__
