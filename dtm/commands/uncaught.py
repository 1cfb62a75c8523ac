"""Exceptions that leave a program which the command runs, and how they are shown.

Three kinds, told apart by type and by where they come from:

* ``start`` could not begin the run (an option, an address, a port, a secret): the user has to
  mend something, and gets one line, as for every other refusal of the command;
* Python did not find the program, or a module of that name: likewise;
* anything else is the program's own, and shown by Python, without the frames of the command
  and of ``runpy`` that stand before the program's first.

In the main thread, before the program runs.

Rejected: catching exceptions around the program.  A program's own ``sys.excepthook``, a
debugger and ``python -i`` have to find them uncaught.
"""

from __future__ import annotations

import sys
from types import CodeType, TracebackType

from dtm.errors import CommunicationError, OptionError


def show_briefly(runs: CodeType) -> None:
    """Have exceptions shown so that nobody catches; ``runs`` is the code that runs the program."""
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        rest = _from_the_program_on(trace, runs)
        if _is_refusal(error, rest):
            sys.stderr.write(f"dtm: {error}\n")
        else:
            show(kind, error.with_traceback(rest), rest)

    sys.excepthook = hook


def _from_the_program_on(trace: TracebackType | None, runs: CodeType) -> TracebackType | None:
    rest = trace
    while rest is not None and rest.tb_frame.f_code is not runs:
        rest = rest.tb_next
    if rest is None:
        return trace
    rest = rest.tb_next
    while rest is not None and rest.tb_frame.f_globals.get("__name__") == "runpy":
        rest = rest.tb_next
    return rest


def _is_refusal(error: BaseException, rest: TracebackType | None) -> bool:
    if isinstance(error, (OptionError, CommunicationError)):
        return _was_starting(rest)
    return isinstance(error, ImportError) and rest is None and _is_of_runpy(error.__cause__)


def _is_of_runpy(cause: BaseException | None) -> bool:
    """Whether a cause says nothing of the program, as it arose in ``runpy``."""
    from traceback import walk_tb

    if cause is None:
        return True
    frames = (frame for frame, _ in walk_tb(cause.__traceback__))
    return all(frame.f_globals.get("__name__") == "runpy" for frame in frames)


def _was_starting(rest: TracebackType | None) -> bool:
    """Whether an error comes out of ``start``, which had not begun the run."""
    from dtm.run import runtime

    if runtime.current is not None and not runtime.current.implicit:
        return False
    while rest is not None and rest.tb_frame.f_code is not runtime.start.__code__:
        rest = rest.tb_next
    return rest is not None
