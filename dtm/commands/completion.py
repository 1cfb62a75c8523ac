"""``dtm completion``: a script that completes ``dtm`` in a shell."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

SUMMARY = "print a script that completes this command in a shell"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the name of the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell it is for")


def execute(given: Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError:
        sys.exit("dtm: completion needs shtab: pip install 'dtm[completion]'")
    from dtm.commands import COMMANDS, complete_parser
    from dtm.commands.completing import after, before

    script = shtab.complete(complete_parser(), given.shell, preamble=before(given.shell, COMMANDS))
    sys.stdout.write(f"{script}\n{after(given.shell, COMMANDS)}")
    return 0
