"""The program of a command line, and running it in this process, as ``__main__``.

Rejected: starting the program as another process.  It would be one process more for
each worker, between a signal and whom it is meant for.
"""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser, Namespace

from dtm.commands.completing import FILES, hint


def add_program(parser: ArgumentParser) -> None:
    """Add what names a program, and its arguments."""
    parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module's name")
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
    """Run the program in this process; it sees its own arguments."""
    import runpy

    from dtm.commands.uncaught import show_briefly

    sys.argv = [given.program, *given.arguments]
    show_briefly(run_program.__code__)
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
    """Look for modules where Python would: not where the command ``dtm`` lies."""
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
