"""How each library is started: one program, many ways of running it.

A contender is a library, and a way of launching it, that one may measure.  Every
program under ``programs/`` takes the library's name as its first argument and
prints one line of JSON; here it is run, bounded in time, and that line is read.
A mark in the environment, which all its processes inherit, tells afterwards what is
left of it: ranks, nannies and daemons leave their parent's group and session.

Rejected: measuring the libraries one after the other in one process.  They leave
threads, forked children and warm caches behind, and MPI can be started only once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAMS = CHECKOUT / "benchmarks" / "programs"
MARK = "RESULT "
MARK_OF_RUN = "BENCHMARK_MARK"
TAIL = 300  # characters of the standard error that a failure shows


class NotMeasured(Exception):  # noqa: N818 - says what there is instead of a figure
    """A contender gave no figure; the message says why."""


@dataclass(frozen=True)
class Contender:
    """One library and how it is launched on a number of workers."""

    label: str
    library: str
    before: Callable[[int], list[str]] = field(default=lambda _workers: [sys.executable])
    environment: Callable[[int], dict[str, str]] = field(default=lambda _workers: {})
    module: str | None = None
    patient: bool = False  # takes seconds to start, so it is run fewer times
    traced: bool = False  # each run of it records a trace, which is thrown away

    def why_not(self) -> str | None:
        """Return why this contender cannot be measured here, or None if it can."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return "not installed"
        if self.module in {"mpi4py", "schwimmbad"} and mpirun() is None:
            return "no mpirun"
        return None


def locally(workers: int) -> dict[str, str]:
    return {"DTM_COMM": "local", "DTM_WORKERS": str(workers)}


def under_mpi(workers: int) -> list[str]:
    return [*mpi_command(workers), sys.executable]


def over_tcp(workers: int) -> list[str]:
    return [sys.executable, "-m", "dtm", "--comm", "tcp", "-n", str(workers)]


def under_mpi4py_futures(workers: int) -> list[str]:
    # One rank more: rank 0 hands out tasks and runs none.
    return [*mpi_command(workers + 1), sys.executable, "-m", "mpi4py.futures"]


def under_mpi_with_a_master(workers: int) -> list[str]:
    # The same.
    return [*mpi_command(workers + 1), sys.executable]


def under_scoop(workers: int) -> list[str]:
    return [sys.executable, "-m", "scoop", "-n", str(workers)]


CONTENDERS = {
    contender.label: contender
    for contender in (
        Contender("serial", "serial"),
        Contender("dtm local", "dtm", environment=locally),
        Contender("dtm mpi", "dtm", before=under_mpi, module="mpi4py"),
        Contender("dtm over tcp", "dtm", before=over_tcp),
        Contender("dtm traced", "dtm", environment=locally, traced=True),
        Contender("dtm offline", "serial"),
        Contender("dtm tcp", "tcp"),
        Contender("dtm tls", "tls", module="cryptography"),
        Contender("Pool", "pool"),
        Contender("ProcessPoolExecutor", "executor"),
        Contender(
            "mpi4py.futures", "mpi4py", before=under_mpi4py_futures, module="mpi4py", patient=True
        ),
        Contender("schwimmbad", "schwimmbad", before=under_mpi_with_a_master, module="schwimmbad"),
        Contender("joblib", "joblib", module="joblib"),
        Contender("SCOOP", "scoop", before=under_scoop, module="scoop", patient=True),
        Contender("Dask", "dask", module="distributed", patient=True),
        Contender("Ray", "ray", module="ray", patient=True),
    )
}


@functools.cache
def mpirun() -> str | None:
    """Return the mpirun beside this Python, else the one on the path, else None."""
    beside = shutil.which("mpirun", path=str(Path(sys.executable).parent))
    return beside or shutil.which("mpirun")


@functools.cache
def mpi_version() -> str:
    """Return the first line that mpirun says of itself."""
    launcher = mpirun()
    if launcher is None:
        return "none"
    said = subprocess.run(
        [launcher, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    return next(iter(said.stdout.splitlines()), "unknown")


def mpi_command(ranks: int) -> list[str]:
    launcher = mpirun()
    if launcher is None:
        message = "no mpirun"
        raise NotMeasured(message)
    # Free to run on any core, as the processes of the other contenders are.
    extra = ["--oversubscribe", "--bind-to", "none"] if "Open MPI" in mpi_version() else []
    return [launcher, *extra, "-n", str(ranks)]


def base_environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("DTM_")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed library has its bytecode
    paths = [str(CHECKOUT), *env.get("PYTHONPATH", "").split(os.pathsep)]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys(paths)))
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def run_program(
    contender: Contender, program: str, arguments: Sequence[str], workers: int, timeout: float
) -> dict[str, Any]:
    """Run a program once and return what it measured, with the wall time of the whole added."""
    reason = contender.why_not()
    if reason is not None:
        raise NotMeasured(reason)
    script = str(PROGRAMS / f"{program}.py")
    command = [
        *contender.before(workers),
        script,
        contender.library,
        f"--workers={workers}",
        *arguments,
    ]
    with tempfile.TemporaryDirectory() as directory:
        traces = {"DTM_TRACE": directory} if contender.traced else {}
        environment = base_environment() | contender.environment(workers) | traces
        begin = time.perf_counter()
        stdout = run_bounded(command, environment, timeout)
        seconds = time.perf_counter() - begin
    for line in reversed(stdout.splitlines()):
        if line.startswith(MARK):
            return {"seconds": seconds, **json.loads(line.removeprefix(MARK))}
    message = "printed no result"
    raise NotMeasured(message)


def run_bounded(command: Sequence[str], env: dict[str, str], timeout: float) -> str:
    """Run a command and return its output; kill all that it started, however it ends."""
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        command,
        env={**env, MARK_OF_RUN: mark},
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            message = f"took more than {timeout:.0f} s"
            raise NotMeasured(message) from None
        finally:
            kill_marked(mark)
    if process.returncode != 0:
        message = f"exit status {process.returncode}: {gist_of(stderr)}"
        raise NotMeasured(message)
    return stdout


def gist_of(stderr: str) -> str:
    """Return the line that names an exception, past a launcher's explanations, or the end."""
    lines = [line for line in stderr.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return lines[-1] if lines else stderr.strip()[-TAIL:]


def kill_marked(mark: str) -> None:
    """Kill every process that carries this mark in its environment."""
    wanted = f"{MARK_OF_RUN}={mark}".encode()
    for book in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            if wanted in book.read_bytes():
                os.kill(int(book.parent.name), signal.SIGKILL)
