"""``dtm run``: a program, on this machine or on others.

With hosts (``--hosts``, or those of an allocation) this process becomes the
launcher.  Otherwise, and in every worker that was started, it runs the
program itself; the options go into the environment, where ``start`` finds them.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dtm.commands.completing import FILES, MANAGERS, hint
from dtm.commands.program import add_program, missing, run_program, words

if TYPE_CHECKING:
    from dtm.launch.allocation import Allocation
    from dtm.launch.hosts import Host
    from dtm.launch.launcher import Run

SUMMARY = "run a program that calls dtm.start(main); without a WORD, this is it"

# Options that stand in the environment of the program, and of its workers.
VARIABLES = {
    "workers": "DTM_WORKERS",
    "comm": "DTM_COMM",
    "seed": "DTM_SEED",
    "trace": "DTM_TRACE",
    "summary": "DTM_SUMMARY",
    "join_slots": "DTM_JOIN_SLOTS",
    "secret_file": "DTM_SECRET_FILE",
    "bind": "DTM_BIND",
    "ports": "DTM_PORTS",
    "tls": "DTM_TLS",
    "ssh": "DTM_SSH",
    "connect_timeout": "DTM_CONNECT_TIMEOUT",
    "fan_out": "DTM_FAN_OUT",
    "tag_output": "DTM_TAG_OUTPUT",
}
EPILOG = (
    "Variables of the environment say the same, and an option has the last word: "
    + ", ".join(VARIABLES.values())
    + "."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``run``."""
    parser.add_argument(
        "-n", "--workers", type=count, metavar="N",
        help="how many workers; default: each core that this process may use, or each slot "
        "that a batch system has granted, or each slot of the hosts",
    )  # fmt: skip
    hosts = parser.add_argument(
        "--hosts", metavar="FILE", help="run on the hosts of this file, by ssh"
    )
    hint(hosts, FILES)
    comm = parser.add_argument(
        "--comm", metavar="NAME",
        help="the communication manager: mpi, local, tcp, serial, or a.path.Class; "
        "default: by how the program is started",
    )  # fmt: skip
    hint(comm, MANAGERS)
    parser.add_argument("--seed", type=int, help="make the random numbers of the run repeatable")
    trace = parser.add_argument(
        "--trace", metavar="DIR", help="record the run in this directory, for dtm report"
    )
    hint(trace, FILES)
    parser.add_argument(
        "--summary", action="store_true", default=None,
        help="print at the end what each function and each worker did",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be started, and start nothing"
    )
    _add_hosts_options(parser)
    _add_network_options(parser)
    add_program(parser)


def _add_hosts_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("runs on hosts")
    group.add_argument(
        "--tag-output", action="store_true", default=None,
        help="put rank and host before each line",
    )  # fmt: skip
    group.add_argument("--ssh", metavar="COMMAND", help="what replaces ssh; takes its arguments")
    group.add_argument(
        "--connect-timeout", metavar="SECONDS", type=_checked("seconds"),
        help="how long a host may take to answer; default: 15",
    )  # fmt: skip
    group.add_argument(
        "--fan-out", metavar="N", type=_checked("positive"),
        help="how many hosts are connected to directly, the others by way of these; default: 64",
    )  # fmt: skip


def _add_network_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("connections of tcp")
    group.add_argument(
        "--join-slots", metavar="N", type=_checked("slots"),
        help="how many workers may join by hand; default: 0, and 16 for --comm tcp alone",
    )  # fmt: skip
    secret = group.add_argument(
        "--secret-file", metavar="FILE",
        help="where to put the secret for them; default: a new file in this directory",
    )  # fmt: skip
    hint(secret, FILES)
    add_listening(group)
    group.add_argument(
        "--tls", action=BooleanOptionalAction, default=None,
        help="encrypt connections; default: if they may leave this machine",
    )  # fmt: skip


def add_listening(group: Any) -> None:
    """Add the options that say where a worker of this machine listens."""
    group.add_argument(
        "--bind", metavar="ADDRESS", type=_checked("address"),
        help="this machine's address at which workers listen; default: chosen on the way to "
        "the others, and for this machine alone if there are none",
    )  # fmt: skip
    group.add_argument(
        "--ports", metavar="LOW-HIGH", type=_checked("ports"),
        help="the ports at which they listen; default: any",
    )  # fmt: skip


def _checked(kind: str) -> Callable[[str], str]:
    """Return what checks an option's text and keeps it: it goes into the environment."""

    def check(text: str) -> str:
        from dtm.launch import settings

        try:
            getattr(settings, kind)(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None
        return text

    return check


def count(text: str) -> int:
    """Read how many workers are wanted."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


count.__name__ = "number of workers"


def seconds(text: str) -> float:
    """Read a time."""
    from dtm.launch import settings

    return settings.seconds(text)


seconds.__name__ = "number of seconds"


def execute(given: Namespace) -> int:
    """Run the program, here or on hosts."""
    for name, variable in VARIABLES.items():
        value = getattr(given, name)
        if value is not None:
            os.environ[variable] = str(int(value) if isinstance(value, bool) else value)
    if not is_worker():
        from dtm.errors import DtmError

        _tell_of_unknown_variables()
        try:
            launched = _launched(given)
        except DtmError as error:
            sys.exit(f"dtm: {error}")
        if launched is not None:
            return launched
    run_program(given)
    return 0


def is_worker() -> bool:
    """Whether this process was started as a worker; these do not start others."""
    return "DTM_WORKER" in os.environ or "DTM_INVITATION" in os.environ


def _tell_of_unknown_variables() -> None:
    from dtm.comm.mpi.environment import MARK

    if _under_mpi():  # each rank would say it
        return
    for name in sorted(os.environ):
        if name.startswith("DTM_") and name not in {*VARIABLES.values(), MARK}:
            sys.stderr.write(
                f"dtm: {name} means nothing to dtm; dtm run --help names the variables that do\n"
            )


def _launched(given: Namespace) -> int | None:
    """Launch the program on hosts and return its status, None if it is to run here."""
    hosts, granted = _hosts(given)
    problem = missing(given)
    if problem is not None:
        sys.exit(f"dtm: {problem}")
    if hosts is None:
        return _describe_here() if given.dry_run else None
    from dataclasses import replace

    from dtm.launch.launcher import described, launch

    run = _run(given, hosts, granted)
    if not given.dry_run:
        return launch(run)
    arguments = _but_dry_run(run.arguments)
    sys.stdout.write("\n".join((*described(replace(run, arguments=arguments)), "")))
    return 0


def _run(given: Namespace, hosts: tuple[Host, ...], granted: Allocation | None) -> Run:
    from dtm.launch.settings import settings
    from dtm.launch.spec import run_again

    files, module = ([], given.program) if given.module else ([given.program], "")
    chosen = settings(os.environ)
    return run_again(hosts, chosen, given.workers, files, words(given), granted, module)


def _hosts(given: Namespace) -> tuple[tuple[Host, ...] | None, Allocation | None]:
    """Return the hosts of the run, None if it is not on hosts, and whose they are."""
    comm = os.environ.get("DTM_COMM")
    if given.hosts is not None:
        if comm not in {None, "", "tcp"}:
            sys.exit(f"dtm: --hosts needs the communication manager tcp, not {comm}")
        from dtm.launch.hosts import read_hosts

        return read_hosts(given.hosts), None
    if comm not in {None, "", "tcp"} or _under_mpi():
        return None, None
    from dtm.launch.spec import beyond_here, old_hosts_file

    old = old_hosts_file(given.arguments)
    if old is not None:
        from dtm.launch.hosts import read_hosts

        return read_hosts(old), None
    granted = beyond_here(os.environ)
    if granted is not None:
        return granted.hosts, granted
    if comm == "tcp" and given.workers is not None:
        from dtm.launch.hosts import Host

        return (Host("localhost", given.workers),), None
    return None, None


def _under_mpi() -> bool:
    from dtm.comm.mpi.environment import launched_by_mpi

    return launched_by_mpi(os.environ)


def _describe_here() -> int:
    """Say what a run without hosts would start."""
    import shlex

    from dtm.launch.share import default_workers
    from dtm.options import Options

    chosen = Options().overridden(os.environ)
    comm = chosen.communicationManager or ("mpi" if _under_mpi() else "local")
    program = shlex.join(_but_dry_run([sys.executable, *sys.orig_argv[1:]]))
    if comm == "mpi":
        text = "this process is a rank of an MPI run, and starts no other"
    elif comm == "local":
        last = (chosen.workers or default_workers(os.environ)) - 1
        ranks = f"ranks 0 to {last}, each" if last else "rank 0"
        text = f"this machine: {ranks}: {program}"
    else:
        text = f"this process alone, with the communication manager {comm}"
    sys.stdout.write(f"{text}\n")
    return 0


def _but_dry_run(words: Sequence[str]) -> list[str]:
    """Return a command line without this option of dtm's, which may be shortened.

    dtm's own is the first: what follows the program is the program's.
    """
    place = next(
        number
        for number, word in enumerate(words)
        if word.startswith("--d") and "--dry-run".startswith(word)
    )
    return [*words[:place], *words[place + 1 :]]
