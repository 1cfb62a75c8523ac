"""Tells from environment variables whether this process is a rank of an MPI run.

The variables may be its own, or inherited from a rank that has started it.

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

MARK = "DTM_MPI_JOINED"
# Only what tells processes apart: MPI libraries add settings of theirs for their children.
_NAMES = (
    "PMIX_NAMESPACE", "PMIX_RANK", "PMIX_ID",
    "OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess_base_jobid",
    "PMI_RANK", "PMI_ID", "PMI_JOBID", "PMI_FD", "PMI_PORT", "HYDI_CONTROL_FD",
    "MV2_COMM_WORLD_RANK", "PALS_APID", "PALS_RANKID", "JSM_NAMESPACE_ID", "JSM_NAMESPACE_RANK",
    "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID",
)  # fmt: skip

# Set by the launcher in each process it starts, by nobody else.  Slurm's own variables are
# no sign: srun sets them for every program, and without PMI each one would be alone.
_LAUNCHER_VARIABLES = (
    "OMPI_COMM_WORLD_SIZE",  # Open MPI
    "PMIX_RANK",  # Open MPI's prrte, srun --mpi=pmix
    "PMI_RANK",  # MPICH, Intel MPI, Cray; srun --mpi=pmi2
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",  # MVAPICH
    "PALS_RANKID",  # Cray's and Slurm's launcher of Shasta systems
    "JSM_NAMESPACE_SIZE",  # IBM's jsrun
)

_SIZES = (
    "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE", "SLURM_NTASKS",
)  # fmt: skip


def launched_by_mpi(environ: Mapping[str, str]) -> bool:
    """Tell from the environment whether an MPI launcher has started this process."""
    return any(environ.get(name, "").isdigit() for name in _LAUNCHER_VARIABLES)


def world_size(environ: Mapping[str, str]) -> int | None:
    """Return how many processes an MPI launcher has started, None if it does not say."""
    texts = (environ.get(name, "") for name in _SIZES)
    return next((int(text) for text in texts if text.isdigit()), None)


def leave_mark(environ: MutableMapping[str, str]) -> None:
    """Note that this process has joined the MPI run that the variables speak of."""
    environ[MARK] = _identity(environ)


def is_inherited(environ: Mapping[str, str]) -> bool:
    """Whether an ancestor of this process has joined the MPI run of these variables."""
    return environ.get(MARK) == _identity(environ)


def _identity(environ: Mapping[str, str]) -> str:
    return ";".join(environ.get(name, "") for name in _NAMES)
