"""The words of the command ``dtm``: a module for each, imported when its word is said.

A module has ``SUMMARY`` (a line), perhaps ``EPILOG`` (the end of its help),
``add_arguments(parser)``, perhaps ``prepare(parser, words)``, which returns the words as argparse
is to read them, and ``execute(given)``, which returns the exit status.  What costs
time to import is imported in ``execute``: every worker of a local run goes through ``run``.

Rejected: a library for commands (click, typer).  ``argparse`` is there already, a run's
start has no milliseconds to give away, and what it lacks, completion, is an extra
that only ``dtm completion`` imports.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

COMMANDS = {
    "run": "dtm.commands.run",
    "join": "dtm.commands.join",
    "doctor": "dtm.commands.doctor",
    "trace": "dtm.commands.trace",
    "report": "dtm.commands.report",
    "predict": "dtm.commands.predict",
    "stacks": "dtm.commands.stacks",
    "completion": "dtm.commands.completion",
}
_DEFAULT = "run"
_UNREAD = 141  # as a shell reports of a process that SIGPIPE ended
_RUNNING = ("run", "join")  # what they print is the program's
_OVERVIEW = """Run Python programs that call dtm.start(main): on the cores of this machine,
under MPI, or on the hosts of a file by ssh.

dtm PROGRAM is short for dtm run PROGRAM, so the options of "dtm run" follow
dtm directly too: dtm -n 4 PROGRAM, dtm --hosts FILE PROGRAM ...  Its help
(dtm run --help) also names the variables of the environment that say the same."""


def execute(arguments: Sequence[str]) -> int:
    """Do what the words of a command line say; return the exit status.

    ``-h``, ``--version`` and mistakes end the process, as argparse does.
    """
    first = arguments[0] if arguments else ""
    if first in {"-h", "--help", "--version"}:
        complete_parser().parse_args(arguments)
    word, rest = (first, arguments[1:]) if first in COMMANDS else (_DEFAULT, arguments)
    module = _module(word)
    parser = _parser(word, module)
    prepare = getattr(module, "prepare", None)
    given: Namespace = parser.parse_args(rest if prepare is None else prepare(parser, rest))
    try:
        status: int = module.execute(given)
        if word not in _RUNNING:
            sys.stdout.flush()
    except BrokenPipeError:
        if word in _RUNNING:
            raise
        # Whoever read what is printed wants no more of it, as ``head`` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    return status


def complete_parser() -> ArgumentParser:
    """Return the parser of all words together, for help and completion."""
    from dtm.version import VERSION

    whole = ArgumentParser(
        prog="dtm", description=_OVERVIEW, formatter_class=RawDescriptionHelpFormatter
    )
    whole.add_argument("--version", action="version", version=f"dtm {VERSION}")
    words = whole.add_subparsers(title="words", metavar="WORD", dest="word")
    for word in COMMANDS:
        module = _module(word)
        epilog = getattr(module, "EPILOG", None)
        one = words.add_parser(
            word, help=module.SUMMARY, description=_sentence(module), epilog=epilog
        )
        module.add_arguments(one)
    return whole


def _module(word: str) -> Any:
    return import_module(COMMANDS[word])


def _parser(word: str, module: Any) -> ArgumentParser:
    epilog = getattr(module, "EPILOG", None)
    parser = ArgumentParser(prog=f"dtm {word}", description=_sentence(module), epilog=epilog)
    module.add_arguments(parser)
    return parser


def _sentence(module: Any) -> str:
    summary: str = module.SUMMARY
    return f"{summary[0].upper()}{summary[1:]}."
