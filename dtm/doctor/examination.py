"""An examination: every look that a plan calls for, judged.

What is looked at depends on where the run would be: this machine, the hosts of a
file or an allocation, or the MPI run that this process is a rank of.  Each look is
bounded in time.  A small real run comes last, and only if nothing before it is a
problem: its own message would say the same again, less clearly.

Called in the main thread, which brings MPI up where it is to be.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from shutil import which

from dtm.doctor import clock, cores, entry, grant, links, mpi, ranks, software, space, threads
from dtm.doctor.conversation import ask
from dtm.doctor.exchange import Exchanged, Root, answer, read
from dtm.doctor.finding import Finding, problem, would_work
from dtm.doctor.machine import Machine
from dtm.doctor.plan import Plan, announced
from dtm.doctor.visit import Enter, Visit, by_batch_system, by_ssh, visit_all
from dtm.errors import CommunicationError
from dtm.launch.cores import thread_variables

_LOOK_SECONDS = 30.0
_RUN_SECONDS = 60.0


def examine(plan: Plan, here: Machine) -> list[Finding] | None:
    """Return what was found; None on the ranks of an MPI run that only answer."""
    if plan.under_mpi:
        return _under_mpi(here)
    if plan.hosts:
        return _on_hosts(plan, here)
    return _on_this_machine(plan, here)


def _on_this_machine(plan: Plan, here: Machine) -> list[Finding]:
    by_dtm = plan.way == "local"
    found = [
        *software.judge(here, here),
        *grant.judge(plan.around, (), plan.workers),
        *cores.judge(here, plan.workers),
        *threads.judge(threads.look(by_dtm, _LOOK_SECONDS), plan.workers, here.usable, here.usable),
        *space.judge(here, plan.workers),
        *mpi.judge(mpi.look(_LOOK_SECONDS), wanted=plan.way == "mpi"),
    ]
    if by_dtm and would_work(found):
        variables = {"DTM_COMM": "local", "DTM_WORKERS": str(min(plan.workers, 2))}
        found += links.judge(exchanged([], variables), "local")
    return found


def _on_hosts(plan: Plan, here: Machine) -> list[Finding]:
    found = [finding.at("here") for finding in software.judge(here, here)]
    found += grant.judge(plan.around, plan.hosts, plan.workers)
    way, enter = _entrance(plan)
    for visit in visit_all(plan.hosts, enter, plan.seconds):
        found += [finding.at(visit.host.name) for finding in _visited(visit, here, way)]
    if not would_work(found):
        return found
    return found + links.judge(exchanged(_options(plan), {}), "tcp")


def _entrance(plan: Plan) -> tuple[str, Enter]:
    """Return how hosts are entered: as a run would, by ssh if there is one."""
    granted = plan.granted
    if granted is not None and granted.start is not None and which("ssh") is None:
        return granted.start[0], by_batch_system(granted)
    return plan.ssh, by_ssh(plan.ssh, plan.seconds)


def _visited(visit: Visit, here: Machine, way: str) -> list[Finding]:
    found = entry.judge(visit, "starting Python" if visit.host.is_local else way)
    there = visit.machine
    if there is None:
        return found
    slots = visit.host.slots
    # Workers there get the environment of the launcher, which is that of this process.
    set_by_dtm = threads.Threads(thread_variables(os.environ), None)
    return [
        *found,
        *software.judge(there, here),
        clock.judge(visit.offset, visit.round_trip / 2),
        *cores.judge(there, slots),
        *threads.judge(set_by_dtm, slots, there.usable, there.usable),
        *space.judge(there, slots),
    ]


def _options(plan: Plan) -> list[str]:
    """Return the options of a run on the hosts of the plan."""
    words = ["--ssh", plan.ssh, "--connect-timeout", f"{plan.seconds:g}", "--comm", "tcp"]
    if plan.hosts_file is not None:
        words += ["--hosts", plan.hosts_file]
    return [*words, "-n", str(plan.workers)]


def exchanged(options: Sequence[str], variables: Mapping[str, str]) -> Exchanged:
    """Exchange messages in a real run, started as a user would start it."""
    program = ["-m", "dtm.doctor.exchange"]
    command = ["-m", "dtm", "run", *options, *program] if options else program
    done = ask([sys.executable, *command], _RUN_SECONDS, {**os.environ, **variables})
    if done.late:
        return Exchanged(error=f"the run did not end within {_RUN_SECONDS:g} s")
    try:
        return read(done.output)
    except (json.JSONDecodeError, TypeError, KeyError):
        last = done.error.splitlines()[-1] if done.error else "it said nothing"
        return Exchanged(error=f"the run ended with status {done.status}: {last}")


def _under_mpi(here: Machine) -> list[Finding] | None:
    from dtm.comm.mpi.library import load
    from dtm.comm.mpi.manager import MpiManager

    started = announced(os.environ)
    watch = threading.Timer(_RUN_SECONDS, _give_up)
    watch.daemon = True
    watch.start()
    try:
        _suspect(mpi.suspicion(load().Get_library_version(), os.environ))
        manager = MpiManager()
    except CommunicationError as error:
        return [problem("MPI", str(error), "see what `dtm doctor` finds without mpirun")]
    finally:
        watch.cancel()
    size = manager.size
    found = mpi.judge_joined(mpi.joined(load()), os.environ)
    if manager.rank:
        with suppress(CommunicationError):  # the root has seen the same, and says so
            answer(manager)
        return None
    if size < started:
        manager.close(0.0)
        return [*found, *ranks.judge_number(size, started)]
    seen = Root(manager).exchange()
    return [
        *found,
        *ranks.judge_number(size, max(started, size)),
        *ranks.judge(seen, here),
        *links.judge(seen, "mpi"),
    ]


def _suspect(why: str) -> None:
    """Say why this may be the end; every rank does, for the first that aborts ends them all."""
    if why:
        sys.stderr.write(f"dtm: {why}; if nothing follows but MPI's own errors, that is why\n")
        sys.stderr.flush()


def _give_up() -> None:
    sys.stderr.write(f"dtm: MPI did not come up within {_RUN_SECONDS:g} s\n")
    os._exit(1)
