"""``dtm.options(progress=True)`` and ``DTM_PROGRESS=1`` show how far a call is."""

from __future__ import annotations

import pytest

from dtm.task import Call
from tests import launch
from tests.launch import PROGRAMS

PROGRAM = PROGRAMS / "progress.py"


def shown(*arguments: str, env: dict[str, str] | None = None) -> str:
    pytest.importorskip("tqdm", reason="tqdm is not installed: pip install 'dtm[progress]'")
    launcher = launch.Launcher("local", 2)
    completed = launcher.run(PROGRAM, *arguments, env=env)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "780\n"
    return completed.stderr


def test_by_an_option() -> None:
    text = shown("option")
    assert "map(slow): 100%" in text
    assert "40/40" in text


def test_by_the_environment() -> None:
    assert "map(slow): 100%" in shown("plain", env={"DTM_PROGRESS": "1"})
    assert "%" not in shown("plain", env={"DTM_PROGRESS": "0"})
    assert "%" not in shown("off", env={"DTM_PROGRESS": "1"})


def test_without_tqdm_the_error_says_what_to_install() -> None:
    completed = launch.Launcher("local", 1).run(PROGRAM, "without")
    assert completed.returncode == 0, completed.stderr
    assert "pip install 'dtm[progress]'" in completed.stdout


def test_what_is_under_way_counts_once() -> None:
    call = Call(abs, range(10), 10, 0, None, "map")
    assert call.done() == 0
    call.sample = [1, 2, 3]
    assert call.done() == 3
    call.account(0, call.sample)
    assert call.done() == 3
    call.account(3, [4, 5])
    assert call.done() == 5
