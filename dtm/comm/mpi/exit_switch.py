"""A switch by which the root ends a rank whose interpreter is held by C code.

A task in C code that keeps the interpreter lock (``sum(range(10**11))``) stops all Python
threads of its process, so it cannot be told that the run is over.  To kill it is no end
that MPI launchers accept: they report a failure, and end the job with a status of their
own.  What they accept is ``MPI_Finalize`` and the exit status 0.  So a rank asks the C
library, in time, to do both when a byte comes through a pipe: an asynchronous read
(POSIX ``aio_read``) whose notification runs ``quick_exit(0)`` in a thread that Python
knows nothing of, and ``MPI_Finalize`` among the functions that ``quick_exit`` calls.
The root gets the other end of the pipe, over the socket of the death watch.  With MPICH
``exit`` follows, since its launcher counts a process as failed that has not run its
exit handlers.

Invariants:

* Only a byte triggers it.  The rank keeps both ends of the pipe open to its own end: the
  read would end, without a byte, when nobody holds the writing end any more.
* The memory that the C library may write to lives as long as the process.

What can go wrong: where the program itself sends Python objects by mpi4py's collective
calls, mpi4py frees something at the end for which it needs the interpreter; then a stuck
rank stays stuck, and the launcher ends it.  A rank that is late rather than stuck may be
inside MPI when the switch is pressed, and crash; so the root presses it last of all, when
the time for the end of the run is half over.  Where the C library has none of this (macOS,
musl, 32 bits), there is no switch, and the launcher ends what is stuck.

Threads: ``install`` in the constructor of the manager; ``press`` under its lock.

Rejected: a signal handler in C that exits.  Its argument, the number of the signal, would
be the exit status.  A thread in a subinterpreter with a lock of its own: Python 3.12 and
later only.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

from dtm.comm.mpi.library import shared_library

_NOTIFY_BY_THREAD = 2  # SIGEV_THREAD
_installed: list[object] = []  # for the C library, which holds addresses only


class _Notification(ctypes.Structure):
    """``struct sigevent`` of glibc on 64 bits."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("unused", ctypes.c_char * 32),
    )


class _Read(ctypes.Structure):
    """``struct aiocb`` of glibc on 64 bits, with room to spare behind it."""

    _fields_ = (
        ("descriptor", ctypes.c_int),
        ("operation", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("notification", _Notification),
        ("internal", ctypes.c_char * 256),
    )


def install() -> tuple[int, ...]:
    """Install the switch; return both ends of its pipe, reading and writing, or nothing."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8 or not _has_glibc():
        return ()
    try:
        library, mpi = ctypes.CDLL(None), shared_library()
        at_quick_exit, read_later = library["__cxa_at_quick_exit"], library["aio_read"]
        steps = [_address(mpi.MPI_Finalize)]  # the last is called first
        if not hasattr(mpi, "ompi_mpi_finalize"):
            steps.insert(0, _address(library.exit))
        quick_exit = _address(library.quick_exit)
    except (AttributeError, OSError):
        return ()
    ends = os.pipe()
    buffer = ctypes.create_string_buffer(1)
    request = _Read(descriptor=ends[0], buffer=ctypes.addressof(buffer), size=1)
    request.notification = _Notification(kind=_NOTIFY_BY_THREAD, function=quick_exit)
    _installed.append((buffer, request))
    # Both return 0 where all is well; the functions get 0 for an argument.
    if any(at_quick_exit(ctypes.c_void_p(step), None) for step in steps) or read_later(
        ctypes.byref(request)
    ):
        for end in ends:
            os.close(end)
        return ()
    return ends


def press(writing_end: int) -> None:
    """End the rank at the other end of the pipe, at once."""
    os.write(writing_end, b"x")


def finalize(timeout: float) -> None:
    """Finalise MPI, but wait no longer than ``timeout`` for the ranks that do not come to it.

    Through the C library, since ``mpi4py.MPI.Finalize`` keeps the interpreter while it waits.
    """
    thread = threading.Thread(
        target=shared_library().MPI_Finalize, name="dtm-finalize", daemon=True
    )
    thread.start()
    thread.join(timeout)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):
        return False


def _address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
