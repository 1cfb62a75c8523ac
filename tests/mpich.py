"""MPICH in an environment of its own: its wheel and that of Open MPI share file names.

The environment is made once, beside the checkout's own, with pip; where that cannot be
done the tests that need it are skipped and say so.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import launch

HOME = launch.ROOT / ".venv-mpich"
INSTALL_SECONDS = 100.0
PACKAGES = ("mpi4py", "dill", "mpich", "numpy")


def python() -> Path:
    """Return the Python of the environment, which is made first if it is not there."""
    given = os.environ.get("DTM_TEST_MPICH_PYTHON")
    if given:
        return Path(given)
    problem = _prepare()
    if problem:
        pytest.skip(f"MPICH could not be installed into {HOME.name}: {problem}")
    return HOME / "bin" / "python"


@functools.cache
def _prepare() -> str:
    """Make the environment unless it is there; return what went wrong, if anything did."""
    if (HOME / "complete").exists():
        return ""
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(HOME)],
        [str(HOME / "bin" / "python"), "-m", "pip", "install", "-q", *PACKAGES],
    ):
        try:
            done = subprocess.run(
                command, check=False, timeout=INSTALL_SECONDS, capture_output=True, text=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if done.returncode:
            return done.stderr.strip()[-500:]
    (HOME / "complete").touch()
    return ""


def run(script: Path, ranks: int, *args: object, timeout: float) -> launch.Completed:
    """Run ``mpiexec -n ranks python script args`` under MPICH."""
    interpreter = python()
    launcher = interpreter.parent / "mpiexec"
    command = [str(launcher), "-n", str(ranks), str(interpreter), str(script), *map(str, args)]
    return launch.run(command, launch.environment(), timeout)
