"""One run as a process sees it: what it changes in the interpreter, and its end, once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from dtm.comm.serial import SingleManager
from dtm.options import Options
from dtm.run.runtime import Run
from tests.fake_manager import FakeManager


@pytest.fixture(autouse=True)
def interpreter() -> Iterator[None]:
    """Put back what a broken run leaves changed."""
    before = sys.getswitchinterval(), sys.getrecursionlimit()
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    sys.setswitchinterval(before[0])
    sys.setrecursionlimit(before[1])
    for number, handler in handlers:
        signal.signal(number, handler)


def state() -> tuple[object, ...]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = [signal.getsignal(number) for number in numbers]
    return sys.getswitchinterval(), sys.getrecursionlimit(), handlers, sys.stdout, sys.stderr


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_the_interpreter_as_it_was(fails: bool) -> None:
    before = state()
    inside: list[object] = []

    def main() -> str:
        inside.extend(state())
        if fails:
            raise ValueError("sour")
        return "over"

    run = Run(SingleManager(), Options(), implicit=False)
    if fails:
        with pytest.raises(ValueError, match="sour"):
            run.lead(main, (), {})
    else:
        assert run.lead(main, (), {}) == "over"
    assert state() == before
    assert all(now != then for now, then in zip(inside[:3], before, strict=False))


def test_of_two_threads_that_take_leave_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Options()
    chosen.update({"workersReturn": True})
    run = Run(FakeManager(), chosen, implicit=False)
    left = []

    def leave(timeout: float) -> None:
        left.append(timeout)
        if len(left) == 1:
            other = threading.Thread(target=run._part, args=(0,))
            other.start()
            other.join(60.0)

    monkeypatch.setattr(run.worker, "leave", leave)
    run._part(0)
    assert len(left) == 1
