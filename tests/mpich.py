"""MPICH in an environment of its own: its wheel and that of Open MPI share file names.

Where the environment cannot be made, the tests that need it are skipped and say so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import environments, launch

HOME = launch.ROOT / ".venv-mpich"
PACKAGES = ("mpich", "numpy")


def python() -> Path:
    """Return the Python of the environment, which is made first if it is not there."""
    given = os.environ.get("DTM_TEST_MPICH_PYTHON")
    if given:
        return Path(given)
    problem = environments.prepare(HOME, sys.executable, *PACKAGES)
    if problem:
        pytest.skip(f"MPICH could not be installed into {HOME.name}: {problem}")
    return HOME / "bin" / "python"


def run(script: Path, ranks: int, *args: object, timeout: float) -> launch.Completed:
    """Run ``mpiexec -n ranks python script args`` under MPICH."""
    interpreter = python()
    launcher = interpreter.parent / "mpiexec"
    command = [str(launcher), "-n", str(ranks), str(interpreter), str(script), *map(str, args)]
    return launch.run(command, launch.environment(), timeout)
