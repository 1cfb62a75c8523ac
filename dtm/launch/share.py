"""This process's share of the machine: how many workers a run here has if nobody says a number.

As many as there are cores that the process may use, but not more than slots that a batch
system has granted, if its job is on this machine alone: not every system confines a job to
its cores.  Of a job with several hosts a run of one machine is no measure.

Read-only; any thread.

Rejected: to refuse a run where the allocation is not understood.  A run of this machine does
not need it; a line on stderr says what was not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dtm.launch.cores import available_cores

# Without any of these there is no batch system, and nothing else need be loaded to know.
_SIGNS = ("SLURM_", "LSB_", "OAR_", "PE_HOSTFILE", "SGE_", "PBS_", "FLUX_")


def default_workers(environ: Mapping[str, str]) -> int:
    """Return how many workers a run of this machine has by default; complains on stderr."""
    from dtm.errors import OptionError

    cores = available_cores()
    try:
        slots = granted_here(environ)
    except OptionError as error:
        sys.stderr.write(f"dtm: {error}; so a worker for each core is taken\n")
        return cores
    return cores if slots is None else min(cores, slots)


def granted_here(environ: Mapping[str, str]) -> int | None:
    """Return the slots of a job that has this machine alone, None if there is none.

    Raises:
        OptionError: what the batch system says is not understood.
    """
    if not any(name.startswith(_SIGNS) for name in environ):
        return None
    from dtm.launch.allocation import allocation
    from dtm.launch.spec import is_beyond_here

    granted = allocation(environ)
    if granted is None or is_beyond_here(granted):
        return None
    return sum(host.slots for host in granted.hosts)
