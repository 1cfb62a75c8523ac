"""Exceptions taken apart and put together again without their constructors.

Many exceptions do not survive pickle, for their constructor wants other arguments than
``args`` holds.  What an exception is, though, is all in its ``args``, in the attributes
of its built-in base and in its ``__dict__``.

Threads: any.

Rejected: to try the constructor first: it may print, log, or take its own message for an
argument and tell it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any

_NOT_STATE = frozenset({"exceptions", "message", "__suppress_context__"})


def make_exception(cls: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    """Return an exception of this class with these arguments and nothing else."""
    return assemble(cls, arguments, {})


def fill_exception(exc: BaseException, state: dict[str, Any]) -> None:
    """Give an exception its attributes, those that it takes."""
    for name, value in state.items():
        try:
            object.__setattr__(exc, name, value)
        except (AttributeError, TypeError):
            continue


class Parts:
    """Stands for the exceptions of a group until they are put together."""

    def __init__(self, parts: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> None:
        self.parts = parts

    def assembled(self) -> list[BaseException]:
        """Return the exceptions."""
        return [make(*arguments) for make, arguments in self.parts]


def assemble(
    cls: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    """Make an exception by the built-in among its bases alone: no code of the class runs."""
    builtin = _builtin_base(cls)
    given = tuple(part.assembled() if isinstance(part, Parts) else part for part in arguments)
    exc: BaseException = builtin.__new__(cls, *given)
    try:
        builtin.__init__(exc, *given)
    except (TypeError, ValueError):  # OSError, UnicodeError: arguments that are not theirs
        exc.args = given
    fill_exception(exc, state)
    return exc


def _builtin_base(cls: type[BaseException]) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def arguments_of(exc: BaseException) -> tuple[Any, ...]:
    """Return the arguments with which its built-in base is made."""
    if isinstance(exc, OSError) and exc.filename is not None and len(exc.args) > 1:
        names = (exc.filename,) if exc.filename2 is None else (exc.filename, None, exc.filename2)
        return (*exc.args[:2], *names)  # args leaves them out
    return exc.args


def state_of(exc: BaseException) -> dict[str, Any]:
    """Return the attributes, wherever they are: in the built-in's own, in slots, in the dict."""
    state: dict[str, Any] = {}
    for base in type(exc).__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, MemberDescriptorType) and name not in _NOT_STATE:
                value = getattr(exc, name, None)
                if value is not None:  # which a built-in takes for a value if it is set again
                    state[name] = value
    return state | vars(exc)
