"""Which communication manager a run has: the one that the options name, or that fits this process.

A process that was started as a worker joins the run that it was started for, whatever the options
say.  Else ``setOptions``, ``DTM_COMM`` or ``--comm`` decides; else it is MPI if an MPI launcher has
started this process; else all the cores of this machine.

Threads: the main thread, before the run begins.
"""

from __future__ import annotations

import os
import sys

from dtm.comm.base import CommunicationManager
from dtm.errors import CommunicationError, OptionError
from dtm.launch.command_line import why_not_again
from dtm.options import Options, imported, old_hosts_file, settings


def join(chosen: Options) -> CommunicationManager:
    """Join or start the run that this process belongs to, and return its manager."""
    from dtm.launch.local_workers import join_run

    manager = chosen.communicationManager
    joined = join_run() or _invited()
    if joined is not None:
        return joined
    if manager is None:
        from dtm.comm.mpi.environment import is_inherited, launched_by_mpi

        ours = launched_by_mpi(os.environ) and not is_inherited(os.environ)
        manager = "mpi" if ours else "local"
    if isinstance(manager, CommunicationManager):
        return manager
    if isinstance(manager, str):
        makers = {"mpi": _mpi, "local": _local, "serial": _serial, "tcp": _tcp}
        make = makers.get(manager)
        manager = make if make is not None else imported("communicationManager", manager)
        if make is not None:
            return make(chosen)
    if not callable(manager):
        raise OptionError(
            f"option communicationManager is {manager!r}; it must be a name, a manager, a class of "
            "managers, or the import path of one"
        )
    made = manager()
    if not isinstance(made, CommunicationManager):
        raise OptionError(
            f"option communicationManager: {manager!r} made a {type(made).__name__}, "
            "not a dtm.comm.base.CommunicationManager"
        )
    return made


def _mpi(_: Options) -> CommunicationManager:
    from dtm.comm.mpi.environment import is_inherited, leave_mark
    from dtm.comm.mpi.manager import MpiManager

    if is_inherited(os.environ):
        raise CommunicationError(
            "this process was started by one that has joined an MPI run already, and cannot join "
            "that as well; let dtm choose the communication manager, or start it by mpirun"
        )
    joined = MpiManager()
    leave_mark(os.environ)
    return joined


def _serial(_: Options) -> CommunicationManager:
    from dtm.comm.serial import SingleManager

    return SingleManager()


def _invited() -> CommunicationManager | None:
    """Join the run over TCP that this process was started for, None if it was not."""
    if "DTM_INVITATION" not in os.environ:
        return None
    from dtm.launch.tcp_worker import join_invited

    return join_invited()


def _tcp(chosen: Options) -> CommunicationManager:
    """Lead a run that others join, or hand over to the launcher if there are hosts or workers."""
    from dtm.launch.hosts import Host, read_hosts
    from dtm.launch.plan import run_on_hosts

    found = settings(os.environ)
    file = old_hosts_file(sys.argv[1:])
    if file is None and chosen.workers is None:
        from dtm.launch.tcp_worker import lead

        return lead(found)
    from dtm.launch.launcher import launch

    hosts = (Host("localhost", chosen.workers or 1),) if file is None else read_hosts(file)
    sys.exit(launch(run_on_hosts(hosts, found, chosen.workers)))


def _local(chosen: Options) -> CommunicationManager:
    from dtm.launch.cores import default_workers
    from dtm.launch.local_workers import start_workers

    workers = chosen.workers or default_workers(os.environ)
    if workers == 1:
        return _serial(chosen)
    reason = why_not_again()
    if reason is not None:
        sys.stderr.write(
            f"dtm: {reason}, so it runs serially, in this process; calls in a block, "
            "with dtm.run():, are parallel here too\n"
        )
        return _serial(chosen)
    return start_workers(workers)
