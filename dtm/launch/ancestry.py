"""Whose MPI run the environment speaks of: this process's, or that of an ancestor.

What a task starts inherits the variables of the MPI launcher, and would join the
run as the rank which its parent is already; MPI libraries crash or hang at that.
So a process that has joined leaves a mark: which rank of which job the variables
say that it is.  Who finds the mark beside variables that say the same has
inherited both, and is a program of its own.  A launcher that a task starts changes
the variables, so its processes do not take the mark for theirs.

Called in the main thread, before there is a run.

Rejected: removing the variables.  Programs read them, to choose a GPU by the rank
on the node for example.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

_MARK = "DTM_MPI_JOINED"
# Only what tells processes apart: MPI libraries add settings of theirs for their children.
_NAMES = (
    "PMIX_NAMESPACE", "PMIX_RANK", "PMIX_ID",
    "OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess_base_jobid",
    "PMI_RANK", "PMI_ID", "PMI_JOBID", "PMI_FD", "PMI_PORT", "HYDI_CONTROL_FD",
    "MV2_COMM_WORLD_RANK", "PALS_APID", "PALS_RANKID", "JSM_NAMESPACE_ID", "JSM_NAMESPACE_RANK",
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID",
)  # fmt: skip


def leave_mark(environ: MutableMapping[str, str]) -> None:
    """Note that this process has joined the MPI run that the variables speak of."""
    environ[_MARK] = _identity(environ)


def is_inherited(environ: Mapping[str, str]) -> bool:
    """Whether an ancestor of this process has joined the MPI run of these variables."""
    return environ.get(_MARK) == _identity(environ)


def _identity(environ: Mapping[str, str]) -> str:
    return ";".join(environ.get(name, "") for name in _NAMES)
