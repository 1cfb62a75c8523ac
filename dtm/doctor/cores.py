"""Processor cores: whether those that may be used are enough for the workers planned.

Pure; any thread.
"""

from __future__ import annotations

from dtm.doctor.finding import Finding, fine, warning
from dtm.doctor.machine import Machine

_BUSY = 0.5  # of the usable cores


def judge(machine: Machine, workers: int) -> list[Finding]:
    """Judge whether a machine has the cores for so many workers."""
    have = f"{_count(workers, 'worker')} on {_usable(machine)}"
    findings = []
    if workers > machine.usable:
        findings.append(
            warning(
                "cores",
                f"{have}: they take turns",
                f"start {machine.usable} here, or ask the batch system for more cores "
                "(with mpirun, mind its binding: --bind-to none)",
                workers=workers,
                usable=machine.usable,
            )
        )
    else:
        findings.append(fine("cores", have, workers=workers, usable=machine.usable))
    if machine.load > machine.usable * _BUSY:
        findings.append(
            warning(
                "load",
                f"other programs keep {machine.load:.1f} of {_count(machine.usable, 'core')} busy",
                "wait for them, take another machine, or start fewer workers",
                load=machine.load,
            )
        )
    return findings


def _usable(machine: Machine) -> str:
    usable = _count(machine.usable, "usable core")
    if machine.usable >= machine.cores:
        return usable
    limits = []
    if len(machine.affinity) < machine.cores:
        limits.append(f"affinity leaves {len(machine.affinity)}")
    if machine.usable < len(machine.affinity):
        limits.append("the control group's quota")
    why = f": {' and '.join(limits)}" if limits else ""
    return f"{usable} (of {machine.cores}{why})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
