"""What a worker's two threads do for each other, and what leaves it, each thing once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dtm.comm.base import Frame
from dtm.comm.serial import SingleManager
from dtm.core.granularity import Profile
from dtm.core.messages import Output, Results, Segment
from dtm.run.worker import Worker
from dtm.task import Call
from dtm.wire.codec import Wire


class Fake(SingleManager):
    """Notes what is sent and how often a wait was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.rank, self.size = 1, 2
        self.hosts = ("alpha", "beta")
        self.sent: list[Sequence[Frame]] = []
        self.wakes = 0

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        assert rank == 0
        self.sent.append(frames)

    def wait(self, timeout: float) -> None:
        assert timeout >= 0

    def wake(self) -> None:
        self.wakes += 1

    def messages(self) -> list[Any]:
        root = Wire(0, "worker 0", lambda *_: Profile())
        return [root.decode(1, list(frames))[1] for frames in self.sent]


def segment(start: int) -> Segment:
    return Segment(1, start, [start], None, "map(f)", 0.0)


def test_a_wake_that_reaches_the_load_balancer_thread_is_passed_on_to_a_resting_main_thread() -> (
    None
):
    comm = Fake()
    worker = Worker(comm)
    worker.idle()
    worker.runner.resting = True
    worker._balance()
    assert comm.wakes == 1


def test_a_resting_main_thread_is_told_of_what_the_load_balancer_thread_has_read() -> None:
    comm = Fake()
    worker = Worker(comm)
    worker.busy()
    worker.runner.resting = True
    worker._balance()
    assert comm.wakes == 1


def test_who_submits_a_call_is_not_held_for_blocked_elsewhere() -> None:
    worker = Worker(Fake())
    worker.service()  # long after its main thread came by
    granularity = worker.scheduler.granularity
    assert granularity.forsaken
    worker.runner.submit(Call(len, [()] * 9, 9, 1, Profile(), "map"))
    assert not granularity.forsaken, "what is dear to send would leave at once"


def test_nobody_is_woken_while_the_main_thread_runs_a_task() -> None:
    comm = Fake()
    worker = Worker(comm)
    worker.busy()
    worker._balance()
    assert comm.wakes == 0


def test_results_leave_together_and_once() -> None:
    comm = Fake()
    worker = Worker(comm)
    worker.ship(0, segment(3))
    worker.ship(0, segment(5))
    assert not comm.sent
    worker.flush()
    worker.flush()
    (message,) = comm.messages()
    assert isinstance(message, Results)
    assert [each.lo for each in message.segments] == [3, 5]


def test_results_that_are_many_leave_at_once() -> None:
    comm = Fake()
    worker = Worker(comm)
    for start in range(256):
        worker.ship(0, segment(start))
    assert sum(len(message.segments) for message in comm.messages()) == 256


def test_lines_of_one_stream_leave_together_in_order_and_once() -> None:
    comm = Fake()
    worker = Worker(comm)
    worker.say("stdout", "one\n")
    for stream, text in (("stdout", "two\n"), ("stdout", "three\n"), ("stderr", "four\n")):
        worker.say(stream, text)
    worker._flush_lines()
    worker._flush_lines()
    assert comm.messages() == [
        Output("stdout", "one\n"), Output("stdout", "two\nthree\n"), Output("stderr", "four\n"),
    ]  # fmt: skip


def test_results_leave_before_a_stack_parks(monkeypatch: pytest.MonkeyPatch) -> None:
    comm = Fake()
    worker = Worker(comm)
    runner = worker.runner
    runner.adopt()
    call = Call(len, [()], 1, 1, Profile(), "apply")
    worker.ship(0, segment(0))
    sent = []

    def park(calls: Sequence[Call]) -> None:
        sent.extend(comm.messages())
        calls[0].account(0, [0])

    monkeypatch.setattr(runner.stacks, "park", park)
    runner.stacks.ready.append(runner.stacks.current)  # so that there is something else to do
    runner.wait(call)
    assert [each.lo for each in sent[0].segments] == [0]
