"""``dtm run``: run a program, on this machine or on others.

With hosts (``--hosts``, or those of an allocation) this process becomes the launcher.  Otherwise,
and in every worker that was started, it runs the program itself; the options go into the
environment, where ``start`` finds them.
"""

from __future__ import annotations

import os
import sys
from argparse import Action, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dtm.commands.completion import FILES, MANAGERS, hint
from dtm.commands.program import add_program, missing, run_program, words
from dtm.errors import DtmError
from dtm.launch.cores import default_workers, granted
from dtm.options import (
    Options,
    address,
    old_hosts_file,
    port,
    ports,
    positive,
    seconds,
    settings,
    slots,
)

if TYPE_CHECKING:
    from dtm.launch.allocation import Allocation
    from dtm.launch.hosts import Host
    from dtm.launch.plan import Run

SUMMARY = "run a program that calls dtm.start(main); without a WORD, this is it"

# Options that stand in the environment of the program, and of its workers.
VARIABLES = {
    name: f"DTM_{name.upper()}"
    for name in (
        "workers", "comm", "seed", "trace", "summary", "live", "stall_after",
        "join_slots", "secret_file",
        "bind",        "ports", "tls", "ssh",
        "connect_timeout", "fan_out", "tag_output",
    )
}  # fmt: skip
EPILOG = (
    "Variables of the environment say the same, and an option has the last word: "
    + ", ".join(VARIABLES.values())
    + "."
)


# fmt: off
def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``run``."""
    add = parser.add_argument
    add("-n", "--workers", type=count, metavar="N", help="how many workers; default: each core "
        "that this process may use, or each slot that a batch system has granted, or each slot of "
        "the hosts")
    hint(add("--hosts", metavar="FILE", help="run on the hosts of this file, by ssh"), FILES)
    hint(add("--comm", metavar="NAME", help="the communication manager: mpi, local, tcp, serial, "
             "or a.path.Class; default: by how the program is started"), MANAGERS)
    add("--seed", type=int, help="make the random numbers of the run repeatable")
    hint(add("--trace", metavar="DIR", help="record the run in this directory, for dtm report"),
         FILES)
    add("--stall-after", metavar="SECONDS", type=checked(seconds), help="tell what "
        "every task does when nothing has moved for so long")
    add("--summary", action="store_true", default=None, help="print at the end what each function "
        "and each worker did")
    add("--live", metavar="PORT", nargs="?", const="1", type=checked(port), help="serve a page "
        "that shows the run while it lasts, at this port of 127.0.0.1; default: any.  Its address "
        "is printed on stderr")
    add("--dry-run", action="store_true", help="print what would be started, and start nothing")
    add = parser.add_argument_group("runs on hosts").add_argument
    add("--tag-output", action="store_true", default=None, help="put rank and host before each "
        "line")
    add_ssh(add, "how long a host may take to answer; default: 15")
    add("--fan-out", metavar="N", type=checked(positive), help="how many hosts are connected to "
        "directly, the others by way of these; default: 64")
    add = parser.add_argument_group("connections of tcp").add_argument
    add("--join-slots", metavar="N", type=checked(slots), help="how many workers may join by hand; "
        "default: 0, and 16 for --comm tcp alone")
    hint(add("--secret-file", metavar="FILE", help="where to put the secret for them; default: a "
             "new file in this directory"), FILES)
    add_listening(add)
    add("--tls", action=BooleanOptionalAction, default=None, help="encrypt connections; default: "
        "if they may leave this machine")
    add_program(parser)


def add_ssh(add: Callable[..., Action], timeout: str) -> None:
    """Add the options that say how hosts are entered."""
    add("--ssh", metavar="COMMAND", help="what replaces ssh; takes its arguments")
    add("--connect-timeout", metavar="SECONDS", type=checked(seconds), help=timeout)


def add_listening(add: Callable[..., Action]) -> None:
    """Add the options that say where a worker of this machine listens."""
    add("--bind", metavar="ADDRESS", type=checked(address), help="this machine's address at which "
        "workers listen; default: chosen on the way to the others, and for this machine alone if "
        "there are none")
    add("--ports", metavar="LOW-HIGH", type=checked(ports), help="the ports at which they listen; "
        "default: any")
# fmt: on


def prepare(parser: ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the words of a command line, ``--live`` with its value if the next word is none.

    argparse would take the program for the port.
    """
    prepared = list(words)
    place = 0
    while place < len(prepared) and prepared[place].startswith("-"):
        word = prepared[place]
        actions = [
            action
            for action in parser._actions  # noqa: SLF001 - argparse does not tell otherwise
            if word in action.option_strings
            or (word.startswith("--") and any(n.startswith(word) for n in action.option_strings))
        ]
        following = prepared[place + 1 : place + 2]
        if len(actions) == 1 and actions[0].dest == "live":
            if following and not following[0].isdigit():
                prepared[place] += "=1"
            else:
                place += 1
        elif any(action.nargs is None for action in actions):
            place += 1
        place += 1
    return prepared


def checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Return what checks an option's text and keeps it: it goes into the environment."""

    def check(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None
        return text

    return check


def count(text: str) -> int:
    """Read how many workers are wanted."""
    try:
        return positive(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no number of workers: {error}") from None


def execute(given: Namespace) -> int:
    """Run the program, here or on hosts."""
    for name, variable in VARIABLES.items():
        value = getattr(given, name)
        if value is not None:
            os.environ[variable] = str(int(value) if isinstance(value, bool) else value)
    if not is_worker():
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
    hosts, found = _hosts(given)
    problem = missing(given)
    if problem is not None:
        sys.exit(f"dtm: {problem}")
    if hosts is None:
        return _describe_here() if given.dry_run else None
    run = _run(given, hosts, found)
    if given.dry_run:
        sys.stdout.write(run.described())
        return 0
    from dtm.launch.launcher import launch

    return launch(run)


def _run(given: Namespace, hosts: tuple[Host, ...], found: Allocation | None) -> Run:
    from dtm.launch.plan import run_on_hosts

    run = run_on_hosts(hosts, settings(os.environ), given.workers, found)
    arguments = _but_dry_run(run.arguments) if given.dry_run else run.arguments
    if given.module:
        return run._replace(arguments=arguments, program=words(given), module=given.program)
    files = [*run.files, given.program]
    return run._replace(arguments=arguments, program=words(given), files=files)


def _hosts(given: Namespace) -> tuple[tuple[Host, ...] | None, Allocation | None]:
    """Return the hosts of the run, None if it is not on hosts, and whose they are."""
    comm = os.environ.get("DTM_COMM")
    if given.hosts is not None and comm not in {None, "", "tcp"}:
        sys.exit(f"dtm: --hosts needs the communication manager tcp, not {comm}")
    if given.hosts is None and (comm not in {None, "", "tcp"} or _under_mpi()):
        return None, None
    file = given.hosts if given.hosts is not None else old_hosts_file(given.arguments)
    found = granted(os.environ) if file is None else None
    if found is not None and found.is_beyond_here:
        return found.hosts, found
    if file is None and (comm != "tcp" or given.workers is None):
        return None, None
    from dtm.launch.hosts import Host, read_hosts

    return (Host("localhost", given.workers),) if file is None else read_hosts(file), None


def _under_mpi() -> bool:
    from dtm.comm.mpi.environment import launched_by_mpi

    return launched_by_mpi(os.environ)


def _describe_here() -> int:
    """Say what a run without hosts would start."""
    import shlex

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
    place = [word.startswith("--d") and "--dry-run".startswith(word) for word in words].index(True)
    return [*words[:place], *words[place + 1 :]]
