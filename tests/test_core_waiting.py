"""How a task waits: which work is its own, and what it does next."""

from __future__ import annotations

import pytest

from dtm.core.wait_policy import Way, own_work, way_to_wait
from dtm.task import Call, Range
from tests.core import call


def made(size: int, parent: object = None, owner: int = 0) -> Call:
    """Return a call with its range."""
    found = call(size, owner=owner, parent=parent)
    found.range = Range(found, 0, size)
    return found


def test_what_is_left_of_the_call_comes_first() -> None:
    task = object()
    awaited, newest = made(3, task), made(2, task)
    assert own_work([awaited], task, 0, newest.range) is awaited.range


def test_of_several_calls_the_first_with_anything_left_is_run() -> None:
    task = object()
    gone, failed, left = (made(2, task) for _ in range(3))
    assert gone.range is not None
    gone.range.claim(2)
    failed.limit = 0
    assert own_work([gone, failed, left], task, 0, None) is left.range


@pytest.mark.parametrize(("parent", "owner"), [("another task", 0), ("this task", 1)])
def test_work_of_others_is_never_its_own(parent: str, owner: int) -> None:
    task, taken = "this task", call(1, parent="this task")
    newest = made(2, parent, owner)
    assert own_work([taken], task, 0, newest.range) is None


def test_the_newest_work_is_run_if_this_task_made_it() -> None:
    task, taken = object(), call(1)
    newest = made(2, task)
    assert own_work([taken], task, 0, newest.range) is newest.range


def test_own_work_is_run_on_top_unless_the_stack_is_deep() -> None:
    own = made(1).range
    assert way_to_wait(own, deep=False, idle=False) is Way.INLINE
    assert way_to_wait(own, deep=False, idle=True) is Way.INLINE
    assert way_to_wait(own, deep=True, idle=False) is Way.PARK


def test_without_own_work_a_task_looks_only_if_it_keeps_nobody_from_running() -> None:
    assert way_to_wait(None, deep=False, idle=True) is Way.LOOK
    assert way_to_wait(None, deep=False, idle=False) is Way.PARK
