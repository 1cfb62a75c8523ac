"""``dtm join``: add workers to a run that is under way."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from dtm.commands.completion import FILES, hint
from dtm.commands.program import add_program, missing, run_program
from dtm.commands.run import add_listening, checked, count, is_worker
from dtm.errors import DtmError
from dtm.options import ports, seconds

if TYPE_CHECKING:
    from dtm.comm.tcp.credentials import Credentials

_INTERRUPTED = 130
SUMMARY = "join a run as further workers; it says on stderr how, if it lets others join"


# fmt: off
def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``join``."""
    add = parser.add_argument
    add("-n", "--workers", type=count, metavar="N", default=1, help="how many workers this machine "
        "adds; default: 1")
    hint(add("--secret-file", metavar="FILE", help="the run's secret, in a file that only you can "
             "read; default: standard input"), FILES)
    add("--connect-timeout", metavar="SECONDS", type=checked(seconds), help="how long the run may "
        "take to answer, or to come if nobody listens there yet; default: 30, and 2 if nobody "
        "listens")
    add_listening(add)
    add("address", metavar="ADDRESS", help="the run's, as tcp://10.0.0.1:40001")
    add_program(parser)
# fmt: on


def execute(given: Namespace) -> int:
    """Add workers, and return the worst of their exit statuses."""
    if is_worker():
        run_program(given)
        return 0
    from dtm.launch.joining import Joiner, check, parsed

    problem = missing(given)
    if problem is not None:
        sys.exit(f"dtm: {problem}")
    try:
        parsed(given.address)
        credentials = _credentials(given.secret_file)
        listening = None if given.ports is None else ports(given.ports)
        joiner = Joiner(given.address, credentials, given.workers, given.bind, listening)
        patience = None if given.connect_timeout is None else seconds(given.connect_timeout)
        check(given.address, credentials, patience)
        return joiner.serve()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except DtmError as error:
        sys.exit(f"dtm: {error}")


def _credentials(path: str | None) -> Credentials:
    from dtm.comm.tcp.credentials import Credentials

    if path is not None:
        return Credentials.from_file(path)
    if os.isatty(0):
        sys.stderr.write("dtm: reading the run's secret from standard input\n")
    return Credentials.read(sys.stdin.buffer)
