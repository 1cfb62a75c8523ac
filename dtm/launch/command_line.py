"""The program that this process runs: whether it can be run once more, and how.

A worker is the same program with the same command line, started in the directory where the
root was started.  That directory is noted when this module is imported, since a program may
change to another before it starts dtm; so import it early.

Read-only; any thread.

Rejected: taking ``__main__.__file__`` and ``sys.argv``.  The interpreter's options would be lost,
and so would ``-m``, whose modules see another ``sys.path``.  For modules:
``importlib.util.find_spec``, which imports the packages above a module, so the user's code
would run in the launcher and in every agent.
"""

# pathlib takes longer to import than all of dtm.

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

_directory: str | None = None
with suppress(OSError):  # it may have been removed
    _directory = os.getcwd()


def start_directory() -> str | None:
    """Return the directory where this process was when dtm was imported, None if unknown."""
    return _directory


def command_line() -> list[str] | None:
    """Return the command that runs this program once more, None where that is impossible."""
    return None if why_not_again() else [sys.executable, *sys.orig_argv[1:]]


def why_not_again() -> str | None:
    """Say why this program cannot be run once more, None if it can."""
    if not sys.executable:
        return "there is no Python interpreter to start, Python is embedded in another program"
    if _is_interactive():
        return "this is an interactive session"
    if _is_multiprocessing_child():
        return "this process was started by multiprocessing"
    kind, what = _what_runs(sys.orig_argv[1:])
    if kind == "command":
        return "the program was given with -c"
    if kind == "input" or _main_file() == "<stdin>":
        return "the program was read from standard input"
    if _main_file() is None:
        return "the main module comes from no file"
    if kind == "file" and not _is_there(what):
        return f"the program cannot be read a second time from {what}"
    return None


def program_file() -> str | None:
    """Return the file that the interpreter was told to run, None for a module."""
    kind, what = _what_runs(sys.orig_argv[1:])
    return what if kind == "file" else None


def module_is_there(module: str, directory: str, environ: Mapping[str, str]) -> bool:
    """Whether this interpreter, started in a directory with an environment, finds a module.

    Nothing of it is run.  Only the first part of a dotted name is looked for: the code of a
    package may decide where the rest is.
    """
    from importlib.machinery import PathFinder

    name = module.partition(".")[0]
    given = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    first = [directory, *(os.path.join(directory, path) for path in given)]
    if PathFinder.find_spec(name, first) is not None:
        return True
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return any(find is not None and find(name, None) is not None for find in finders)


def _main_file() -> str | None:
    return getattr(sys.modules.get("__main__"), "__file__", None)


def _is_interactive() -> bool:
    if sys.flags.interactive or sys.flags.inspect or hasattr(sys, "ps1"):
        return True
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _is_multiprocessing_child() -> bool:
    process: Any = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _is_there(path: str) -> bool:
    """Whether a file or directory is there to be read again; a pipe is not."""
    path = os.path.join(_directory or "", path)
    return os.path.isfile(path) or os.path.isdir(path)


def _what_runs(arguments: list[str]) -> tuple[str, str]:
    """Find what the interpreter was told to run, as in ``("module", "dtm")``."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "-":
            break
        if not argument.startswith("-"):
            return "file", argument
        if argument == "--check-hash-based-pycs":
            next(rest, None)
        elif not argument.startswith("--"):
            found = _among_letters(argument, rest)
            if found is not None:
                return found
    return "input", ""


def _among_letters(argument: str, rest: Iterator[str]) -> tuple[str, str] | None:
    """Look through options written together, as in ``-uOm``; consume what they take."""
    for place, letter in enumerate(argument):
        if letter in "cmWX":
            value = argument[place + 1 :] or next(rest, "")
            kinds = {"c": "command", "m": "module"}
            return (kinds[letter], value) if letter in kinds else None
    return None
