"""The ranks of an MPI run: whether they see each other, and what their machines are like.

Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dtm.doctor import cores, software, space, threads
from dtm.doctor.exchange import Exchanged
from dtm.doctor.finding import Finding, fine, problem, warning
from dtm.doctor.machine import Machine
from dtm.doctor.threads import Threads


def judge_number(size: int, announced: int) -> list[Finding]:
    """Judge whether the ranks that were started are those that MPI knows."""
    if size >= announced:
        return [fine("ranks", f"{size} of {announced} see each other")]
    return [
        problem(
            "ranks",
            f"the launcher has started {announced} processes, but each run has {size}",
            "launcher and MPI library are of different kinds: start it by the mpiexec of the "
            "library that mpi4py uses (without any launcher, dtm doctor says which)",
        )
    ]


def judge(exchanged: Exchanged, here: Machine) -> list[Finding]:
    """Judge the machines of the ranks."""
    found: list[Finding] = []
    for name, machines in _by_host(exchanged.machines).items():
        first = machines[0]
        together = _together(machines)
        judged = [
            *_unique(each for machine in machines for each in software.judge(machine, here)),
            *cores.judge(together, len(machines)),
            *_binding(machines, together),
            *threads.judge(
                Threads(first.threads, None), len(machines), together.usable, first.usable
            ),
            *space.judge(first, len(machines)),
        ]
        found += [finding.at(name) for finding in judged]
    return found


def _by_host(machines: Mapping[int, Machine]) -> dict[str, list[Machine]]:
    found: dict[str, list[Machine]] = {}
    for rank in sorted(machines):
        found.setdefault(machines[rank].name, []).append(machines[rank])
    return found


def _together(machines: list[Machine]) -> Machine:
    """Return a machine as all its ranks together see it: each may be bound to a core."""
    affinity = tuple(sorted({core for machine in machines for core in machine.affinity}))
    quota = max(machine.usable for machine in machines)
    limited = any(machine.usable < len(machine.affinity) for machine in machines)
    usable = min(quota, len(affinity)) if limited else len(affinity)
    return replace(machines[0], affinity=affinity, usable=usable)


def _binding(machines: list[Machine], together: Machine) -> list[Finding]:
    if len(together.affinity) >= min(len(machines), together.cores):
        return []
    return [
        warning(
            "binding",
            f"{len(machines)} ranks are bound to {len(together.affinity)} of "
            f"{together.cores} cores",
            "tell the launcher otherwise: --bind-to none (Open MPI), -bind-to none (MPICH), "
            "--cpu-bind=none (srun)",
        )
    ]


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    unique: list[Finding] = []
    for finding in findings:
        if finding not in unique:
            unique.append(finding)
    return unique
