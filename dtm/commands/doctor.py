"""``dtm doctor``: whether a run would work, and what to do if not."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from dtm.commands.completion import FILES, hint
from dtm.commands.run import add_ssh, count
from dtm.errors import DtmError
from dtm.options import MANAGERS, Options, seconds, settings

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
    from dtm.doctor.examination import examine, planned
    from dtm.doctor.report import as_json, as_text, would_work

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    here = machine.look()
    try:
        plan = planned(os.environ, here.usable, *_wishes(given))
    except DtmError as error:
        sys.stderr.write(f"dtm: {error}\n")
        return 1
    found = examine(plan, here)
    if found is None:
        return 0
    text = as_json(plan.facts(), found) if given.json else as_text(str(plan), found)
    sys.stdout.write(text)
    return 0 if would_work(found) else 1


def _end(number: int, _frame: object) -> None:
    """Raise ``SystemExit``, so that commands which the doctor runs are ended too."""
    sys.exit(128 + number)


def _wishes(given: Namespace) -> tuple[str | None, int | None, str | None, str, float]:
    """Return what the options ask for, and variables where there is no option.

    That is the communication manager, workers, a file of hosts, what replaces ssh, seconds.
    """
    import os

    from dtm.doctor.examination import WAYS

    usual = settings(os.environ)
    said = Options().overridden(os.environ)
    way = MANAGERS.get(said.communicationManager or "")
    return (
        given.comm or (way if way in WAYS else None),
        given.workers or said.workers,
        given.hosts,
        given.ssh or usual.ssh,
        seconds(given.connect_timeout) if given.connect_timeout else usual.connect_timeout,
    )
