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
INSTALL_SECONDS = 300.0


@functools.cache
def python() -> Path:
    """Return the Python of the environment, which is made first if it is not there."""
    given = os.environ.get("DTM_TEST_MPICH_PYTHON")
    if given:
        return Path(given)
    found = HOME / "bin" / "python"
    if not (HOME / "complete").exists():
        try:
            _make(found)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"MPICH could not be installed into {HOME.name}: {error}")
    return found


def _make(found: Path) -> None:
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(HOME)],
        [str(found), "-m", "pip", "install", "-q", "mpi4py", "dill", "mpich", "numpy"],
    ):
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS, capture_output=True)
    (HOME / "complete").touch()


def run(script: Path, ranks: int, *args: object, timeout: float) -> launch.Completed:
    """Run ``mpiexec -n ranks python script args`` under MPICH."""
    interpreter = python()
    launcher = interpreter.parent / "mpiexec"
    command = [str(launcher), "-n", str(ranks), str(interpreter), str(script), *map(str, args)]
    return launch.run(command, launch.environment(), timeout)
