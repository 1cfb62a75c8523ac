"""``dtm doctor``: whether a run would work, and what to do if not."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from dtm.commands.completion import FILES, hint
from dtm.commands.run import add_ssh, count
from dtm.errors import DtmError
from dtm.options import MANAGERS, Options, seconds, settings

if TYPE_CHECKING:
    from dtm.doctor.plan import Wishes

SUMMARY = "look at this machine and its allocation, and say whether a run would work"


# fmt: off
def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    add = parser.add_argument
    add("-n", "--workers", type=count, metavar="N", help="how many workers there would be; "
        "default: each core of this machine, or each slot of the hosts")
    hint(add("--hosts", metavar="FILE", help="look at the hosts of this file, by ssh"), FILES)
    add("--comm", choices=("mpi", "local", "tcp"), help="the communication manager; default: the "
        "one that a run started like this would have")
    add_ssh(add, "how long a host may take to answer; default: 15")
    add("--json", action="store_true", help="print the findings for programs")
# fmt: on


def execute(given: Namespace) -> int:
    """Examine, and print what was found; return 0 if a run would work, else 1."""
    import os
    import signal

    from dtm.doctor import machine
    from dtm.doctor.examination import examine
    from dtm.doctor.finding import would_work
    from dtm.doctor.plan import planned, rank
    from dtm.doctor.report import as_json, as_text

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    here = machine.look()
    try:
        plan = planned(_wishes(given), os.environ, here.usable)
    except DtmError as error:
        sys.stderr.write(f"dtm: {error}\n")
        return 1
    found = examine(plan, here)
    if found is None:
        return 0
    if not (plan.under_mpi and rank(os.environ)):  # where each rank is alone, one speaks for all
        sys.stdout.write(as_json(plan, found) if given.json else as_text(plan, found))
    return 0 if would_work(found) else 1


def _end(number: int, _frame: object) -> None:
    """Raise ``SystemExit``, so that the processes which ask other hosts are ended too."""
    sys.exit(128 + number)


def _wishes(given: Namespace) -> Wishes:
    """Return what options and, where they are silent, variables say."""
    import os

    from dtm.doctor.plan import WAYS, Wishes

    usual = settings(os.environ)
    said = Options().overridden(os.environ)
    way = MANAGERS.get(said.communicationManager or "")
    return Wishes(
        given.comm or (way if way in WAYS else None),
        given.workers or said.workers,
        given.hosts,
        given.ssh or usual.ssh,
        seconds(given.connect_timeout) if given.connect_timeout else usual.connect_timeout,
    )
