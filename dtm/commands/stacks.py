"""``dtm stacks``: what every task of a run under way does, and waits for."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

SUMMARY = "show what every task of a run under way does, and what it waits for"
ANSWER_SECONDS = 15.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the process to ask."""
    parser.add_argument(
        "pid", metavar="PID", type=int,
        help="the process of the root, on this machine: the one that runs main",
    )  # fmt: skip


def execute(given: Namespace) -> int:
    """Ask, wait for the answer, and print it."""
    import os
    import shutil
    import signal
    from time import monotonic, sleep

    from dtm.run.stack_dump import answer_directory

    directory = answer_directory(given.pid)
    if given.pid <= 0 or not _catches(given.pid):
        sys.exit(
            f"dtm: process {given.pid} is not the root of a run under way: it does not listen for "
            "SIGUSR1, or is not yours, or not on this machine"
        )
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        sys.exit(f"dtm: somebody else asks this run; if not, remove {directory}")
    try:
        os.kill(given.pid, signal.SIGUSR1)
        answer = os.path.join(directory, "answer")
        until = monotonic() + ANSWER_SECONDS
        while not os.path.exists(answer):
            if monotonic() > until:
                sys.exit(f"dtm: process {given.pid} has not answered in {ANSWER_SECONDS:g} s")
            sleep(0.02)
        with open(answer, encoding="utf-8") as file:
            sys.stdout.write(file.read())
    except OSError as error:
        sys.exit(f"dtm: cannot ask process {given.pid}: {error.strerror}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _catches(pid: int) -> bool:
    """Whether a process of this user has a handler for SIGUSR1, which would end it otherwise."""
    import signal

    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return False
    return bool(int(fields.get("SigCgt", "0"), 16) >> (signal.SIGUSR1 - 1) & 1)
