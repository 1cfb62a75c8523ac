"""No loop of a task straddles two pieces of the interpreter's stack."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import pytest

from dtm.run.stack_chunks import call_with_room
from dtm.run.waiting import MOST_FRAMES

LOOPS = 500


def _leaf(number: int) -> int:
    return number


def _faults() -> int:
    """Return how often a page is touched for the first time while a loop calls a function."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for number in range(LOOPS):
        _leaf(number)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def _deeper(depth: int, found: list[int]) -> list[int]:
    found.append(_faults())
    return found if depth == 0 else _deeper(depth - 1, found)


@pytest.fixture(autouse=True)
def _deep():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + MOST_FRAMES)
    yield
    sys.setrecursionlimit(limit)


def test_with_room_no_depth_is_an_unlucky_one() -> None:
    assert max(call_with_room(_deeper, MOST_FRAMES, [])) < LOOPS / 10


def test_values_arguments_and_errors_pass_through() -> None:
    assert call_with_room(divmod, 7, 2) == (3, 1)
    assert call_with_room(dict, one=1) == {"one": 1}
    failing: Callable[[], float] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        call_with_room(failing)
