"""``dtm doctor``: whether a run would work, and what to do if not."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from dtm.commands.run import count

SUMMARY = "look at this machine and its allocation, and say whether a run would work"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    parser.add_argument(
        "-n", "--workers", type=count, metavar="N",
        help="how many workers there would be; default: each core of this machine, or each slot "
        "of the hosts",
    )  # fmt: skip
    parser.add_argument("--hosts", metavar="FILE", help="look at the hosts of this file, by ssh")
    parser.add_argument(
        "--comm", choices=("mpi", "local", "tcp"),
        help="the communication manager; default: the one that a run started like this would have",
    )  # fmt: skip
    parser.add_argument("--ssh", metavar="COMMAND", help="what replaces ssh; takes its arguments")
    parser.add_argument(
        "--connect-timeout", metavar="SECONDS", type=_seconds,
        help="how long a host may take to answer; default: 15",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the findings for programs")


def execute(given: Namespace) -> int:
    """Examine, and print what was found; return 0 if a run would work, else 1."""
    import os

    from dtm.doctor import machine
    from dtm.doctor.examination import examine
    from dtm.doctor.finding import would_work
    from dtm.doctor.plan import Wishes, planned, rank
    from dtm.doctor.report import as_json, as_text
    from dtm.errors import DtmError
    from dtm.launch.settings import settings

    here = machine.look()
    try:
        usual = settings(os.environ)
        wishes = Wishes(
            given.comm,
            given.workers,
            given.hosts,
            given.ssh or usual.ssh,
            given.connect_timeout or usual.connect_timeout,
        )
        plan = planned(wishes, os.environ, here.usable)
    except DtmError as error:
        sys.stderr.write(f"dtm: {error}\n")
        return 1
    found = examine(plan, here)
    if found is None:
        return 0
    if not (plan.under_mpi and rank(os.environ)):  # where each rank is alone, one speaks for all
        sys.stdout.write(as_json(plan, found) if given.json else as_text(plan, found))
    return 0 if would_work(found) else 1


def _seconds(text: str) -> float:
    from dtm.launch.settings import seconds

    return seconds(text)


_seconds.__name__ = "number of seconds"
