"""The program of a command line: running it in this process as ``__main__``, and how it fails.

An exception that leaves the program is shown in one of two ways:

* ``start`` could not begin the run (an option, an address, a port, a secret), or Python did not
  find the program: the user has to mend something, and gets one line, as for all that the command
  refuses;
* anything else is the program's own, and shown by Python, without the frames of the command and of
  ``runpy`` that stand before the program's first.

With ``--inside`` one process runs the program, in a run that lasts as long as it does, and the
others serve it (:mod:`dtm.run.inside`).

In the main thread.

Rejected: starting the program as another process.  It would be one more for each worker, between a
signal and the process that it is meant for.  Also: catching exceptions around the program; its own
``sys.excepthook``, a debugger and ``python -i`` have to find them uncaught.
"""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser, Namespace
from types import CodeType, TracebackType

from dtm.commands.completion import FILES, hint
from dtm.errors import CommunicationError, OptionError
from dtm.options import Options
from dtm.run import runtime
from dtm.run.managers import join


def add_program(parser: ArgumentParser) -> None:
    """Add what names a program, and its arguments."""
    parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module's name")
    parser.add_argument(
        "--inside",
        action="store_true",
        help="run PROGRAM once, and let the other workers serve its calls of dtm, wherever they "
        "stand; it need not call dtm.start",
    )
    program = parser.add_argument(
        "program", metavar="PROGRAM", help="a file, a directory or zip, or a module"
    )
    arguments = parser.add_argument(
        "arguments", metavar="ARGUMENT", nargs=REMAINDER, help="go to the program"
    )
    arguments.required = False  # else argparse calls it so where nothing is said at all
    for names in (program, arguments):
        hint(names, FILES)


def run_program(given: Namespace) -> None:
    """Run the program in this process, or serve it; it sees its own arguments."""
    _show_briefly(_run.__code__)
    if not given.inside:
        _run(given)
        return
    from dtm.run import inside

    chosen = Options().overridden(os.environ)
    try:
        comm = join(chosen)
    except (OptionError, CommunicationError) as error:
        sys.exit(f"dtm: {error}")
    if comm.rank:
        inside.follow(comm, chosen)
    else:
        inside.lead(comm, chosen, _run, given)


def _run(given: Namespace) -> None:
    import runpy

    sys.argv = [given.program, *given.arguments]
    if given.module:
        _look_first_in(os.getcwd())
        runpy.run_module(given.program, run_name="__main__", alter_sys=True)
        return
    if not os.path.exists(given.program):
        sys.exit(f"dtm: there is no program {given.program!r}")
    if os.path.isfile(given.program) and given.program.endswith(".py"):
        _look_first_in(os.path.dirname(os.path.abspath(given.program)))
    runpy.run_path(given.program, run_name="__main__")


def _look_first_in(directory: str) -> None:
    """Look for modules where Python would, not where the command ``dtm`` is installed."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = directory


def words(given: Namespace) -> str:
    """Return the program and its arguments as words of a shell."""
    import shlex

    module = ["-m"] if given.module else []
    return shlex.join([*module, given.program, *given.arguments])


def missing(given: Namespace) -> str | None:
    """Say what is wrong with the program, None if it is there; modules are looked for later."""
    if given.module or os.path.exists(given.program):
        return None
    return f"there is no program {given.program!r}"


# Exceptions that leave the program.


def _show_briefly(runs: CodeType) -> None:
    """Set ``sys.excepthook``; ``runs`` is the code that runs the program."""
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
    if runtime.current is not None and not runtime.current.implicit:
        return False
    while rest is not None and rest.tb_frame.f_code is not runtime.start.__code__:
        rest = rest.tb_next
    return rest is not None
