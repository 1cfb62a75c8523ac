"""Runs a program under dtm as a user would, and never for longer than was said.

Every program gets a process group of its own, which is killed whole when time is
up, so that neither a worker nor a launcher outlives its test.

Rejected: ``subprocess.run(timeout=…)``: it kills the launcher only, and then waits
for ever on a pipe that the orphaned workers still hold open.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_TIMEOUT = 60.0

Completed = subprocess.CompletedProcess[str]


def run_local(
    script: str | Path, workers: int, *args: object, timeout: float = DEFAULT_TIMEOUT
) -> Completed:
    """Run ``python script args`` with so many workers of this machine."""
    command = [sys.executable, str(script), *map(str, args)]
    return run(command, environment({"DTM_WORKERS": str(workers)}), timeout)


def run_mpi(
    script: str | Path, ranks: int, *args: object, timeout: float = DEFAULT_TIMEOUT
) -> Completed:
    """Run ``mpirun -n ranks python script args``."""
    command = [*mpi_prefix(ranks), sys.executable, str(script), *map(str, args)]
    return run(command, environment(), timeout)


@functools.cache
def find_mpirun() -> str | None:
    """Return the mpirun beside this Python, else the one on the path, else None."""
    beside = shutil.which("mpirun", path=str(Path(sys.executable).parent))
    return beside or shutil.which("mpirun")


@functools.cache
def is_open_mpi(mpirun: str) -> bool:
    """Tell Open MPI's mpirun, which wants to be told more, from the others."""
    version = subprocess.run(
        [mpirun, "--version"],
        capture_output=True,
        text=True,
        timeout=DEFAULT_TIMEOUT,
        env=environment(),
        check=False,
    )
    return "Open MPI" in version.stdout


def mpi_prefix(ranks: int) -> list[str]:
    """Return what goes before ``python`` on the command line of an MPI run."""
    mpirun = find_mpirun()
    if mpirun is None:
        message = "there is no mpirun"
        raise FileNotFoundError(message)
    extra = ["--oversubscribe"] if is_open_mpi(mpirun) else []  # more ranks than cores
    return [mpirun, *extra, "-n", str(ranks)]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program under test: this checkout, no options left over."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DTM_")}
    paths = [str(ROOT), *env.get("PYTHONPATH", "").split(os.pathsep)]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys(paths)))
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env | (extra or {})


def run(command: Sequence[str], env: dict[str, str], timeout: float) -> Completed:
    """Run a command in a process group of its own; kill all of it when time is up."""
    with subprocess.Popen(
        command,
        env=env,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate(timeout=DEFAULT_TIMEOUT)
            message = f"{command} took more than {timeout} s\n{stdout}\n{stderr}"
            raise AssertionError(message) from None
    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)
