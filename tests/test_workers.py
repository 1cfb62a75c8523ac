"""What a worker's two threads do for each other, and what leaves it, each thing once."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, sleep
from typing import Any

import pytest

from dtm.core.granularity import Profile
from dtm.core.messages import Grant, Output, Refusal, Results, Segment, Stopped
from dtm.run import outbox
from dtm.run import runner as runner_module
from dtm.run import waiting as waiting_module
from dtm.run.worker import Worker
from dtm.task import Call, Range
from tests.fake_manager import FakeManager


def segment(start: int) -> Segment:
    return Segment(1, start, [start], None, "map(f)", 0.0)


def test_a_main_thread_that_turns_idle_calls_the_load_balancer_thread_back_from_its_wait() -> None:
    comm = FakeManager()
    worker = Worker(comm)
    worker.busy()
    worker.idle()
    assert comm.wakes == 0  # it does not wait
    worker.busy()
    worker._inside.add(1)
    for _ in range(2):
        worker.idle()
    assert comm.wakes == 1


def test_or_it_is_told_to_mind_no_messages_until_a_task_runs() -> None:
    comm = FakeManager(tells=True)
    worker = Worker(comm)
    worker._inside.add(1)
    for act in (worker.idle, worker.idle, worker.busy, worker.busy):
        act()
    assert (comm.told, comm.wakes) == ([False, True], 0)
    worker.idle()
    worker._timer = perf_counter() + 1.0
    worker.busy()
    assert comm.wakes == 1, "it would sleep past the time that was set meanwhile"


def test_a_wake_that_reaches_the_load_balancer_thread_is_passed_on_to_a_resting_main_thread() -> (
    None
):
    comm = FakeManager()
    worker = Worker(comm)
    worker.idle()
    worker.runner.resting = True
    worker._balance()
    assert comm.wakes == 1


def test_a_resting_main_thread_is_told_of_what_the_load_balancer_thread_has_read() -> None:
    comm = FakeManager()
    worker = Worker(comm)
    worker.busy()
    worker.runner.resting = True
    worker._balance()
    assert comm.wakes == 1


def test_who_submits_a_call_is_not_held_for_blocked_elsewhere() -> None:
    worker = Worker(FakeManager())
    worker.service()  # long after its main thread came by
    granularity = worker.scheduler.granularity
    assert granularity.main_thread_away
    worker.runner.submit(Call(len, [()] * 9, 9, 1, Profile(), "map"))
    assert not granularity.main_thread_away, "what is dear to send would leave at once"


def test_nobody_is_woken_while_the_main_thread_runs_a_task() -> None:
    comm = FakeManager()
    worker = Worker(comm)
    worker.busy()
    worker._balance()
    assert comm.wakes == 0


def test_results_leave_together_and_once() -> None:
    comm = FakeManager()
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
    comm = FakeManager()
    worker = Worker(comm)
    for start in range(256):
        worker.ship(0, segment(start))
    assert sum(len(message.segments) for message in comm.messages()) == 256


def test_lines_of_one_stream_leave_together_in_order_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comm = FakeManager()
    worker = Worker(comm)
    worker.say("stdout", "one\n")
    monkeypatch.setattr(outbox, "OUTPUT_SECONDS", 600.0)  # however slow this machine is
    for stream, text in (("stdout", "two\n"), ("stdout", "three\n"), ("stderr", "four\n")):
        worker.say(stream, text)
    worker._flush_lines()
    worker._flush_lines()
    assert comm.messages() == [
        Output("stdout", "one\n"), Output("stdout", "two\nthree\n"), Output("stderr", "four\n"),
    ]  # fmt: skip


def test_results_leave_before_a_stack_parks(monkeypatch: pytest.MonkeyPatch) -> None:
    comm = FakeManager()
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


def test_who_asks_for_what_cannot_be_sent_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    comm = FakeManager(rank=0)
    worker = Worker(comm)
    part = call_of([object, (x for x in ())], worker)
    with worker.lock:
        worker.send(1, Grant(7, (part,)))
        assert [(work.lo, work.hi, work.pinned) for work in worker.scheduler.deque] == [
            (1, 2, True), (0, 1, False),
        ]  # fmt: skip
    assert comm.messages() == [Refusal(7)]
    assert "item 1 of map(len)" in capsys.readouterr().err


def test_a_share_that_cannot_be_sent_is_sent_empty(capsys: pytest.CaptureFixture[str]) -> None:
    comm = FakeManager(rank=0)
    worker = Worker(comm)
    part = call_of([(x for x in ())], worker)
    with worker.lock:
        worker.send(1, Grant(0, (part,), 3))
    assert comm.messages() == [Grant(0, (), 3)]
    assert "item 0 of map(len)" in capsys.readouterr().err


def call_of(items: list[Any], worker: Worker, **more: Any) -> Range:
    """Return the range of a call that this worker has made, or worker 0 for it."""
    function = more.pop("function", len)
    owner = more.pop("owner", worker.comm.rank)
    call = Call(function, items, len(items), owner, Profile(), "map", **more)
    return Range(call, 0, len(items))


class Clock:
    """A clock that goes on by so many seconds each time that it is looked at."""

    def __init__(self, seconds: float) -> None:
        self.now = 1000.0
        self._seconds = seconds

    def __call__(self) -> float:
        self.now += self._seconds
        return self.now


def test_streaming_results_leave_while_their_part_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    comm = FakeManager()
    worker = Worker(comm)
    worker.runner.adopt()
    before: list[int] = []
    part = call_of(
        [0, 1, 2], worker, owner=0, key=1, streaming=True,
        function=lambda _: before.append(len(comm.messages())),
    )  # fmt: skip
    monkeypatch.setattr(runner_module, "perf_counter", Clock(0.002))
    worker.runner.run(part)
    assert before == [0, 1, 2]


def test_what_fails_here_for_another_worker_stops_its_other_parts_here() -> None:
    worker = Worker(FakeManager())
    worker.runner.adopt()
    ran: list[int] = []

    def fail(x: int) -> None:
        ran.append(x)
        raise ValueError(x)

    part = call_of(list(range(6)), worker, owner=0, key=1, function=fail)
    part.hi = 3
    for each in (part, Range(part.call, 3, 6)):
        worker.runner.run(each)
    assert ran == [0]


def test_a_stack_that_is_ready_goes_on_between_the_strips_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(FakeManager(rank=0, size=1))
    runner = worker.runner
    runner.adopt()
    awaited = call_of([0], worker).call
    ran: list[int] = []

    def work(x: int) -> None:
        ran.append(x)
        runner.ring(awaited)

    runner.submit(call_of(list(range(9)), worker, function=work).call)
    monkeypatch.setattr(runner_module, "perf_counter", Clock(0.002))
    runner.stacks.park([awaited])
    assert ran == [0]


def test_a_task_that_gives_way_is_itself_when_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Worker(FakeManager()).runner
    runner.adopt()
    task = runner.context()

    def other() -> None:
        runner.thread.context = None

    monkeypatch.setattr(runner.stacks, "give_way", other)
    runner._give_way()
    assert runner.context() is task


def test_what_a_worker_spends_on_messages_is_no_absence_of_its_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or to pickle much would make it send whatever it has, as if it were stuck."""
    worker = Worker(FakeManager())
    monkeypatch.setattr(worker.scheduler, "send_due", lambda _: sleep(0.02) or [])
    worker.runner.polled = before = perf_counter()
    worker.service()
    assert worker.runner.polled >= before + 0.02


class Noted:
    """Stands for the scheduler's ``submit``: notes which calls were kept."""

    def __init__(self) -> None:
        self.kept: list[bool] = []

    def __call__(self, _call: Call, _now: float, *, kept: bool) -> list[Any]:
        self.kept.append(kept)
        return []


def test_a_single_item_is_kept_for_the_caller_that_waits_for_it_and_can_run_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(FakeManager())
    runner, noted = worker.runner, Noted()
    monkeypatch.setattr(runner.scheduler, "submit", noted)
    one, two = call_of([0], worker).call, call_of([0, 1], worker).call
    runner.submit(one, waits=True)  # of a thread that runs no tasks
    runner.adopt()
    runner.submit(one, waits=True)
    runner.submit(one)
    runner.submit(two, waits=True)
    monkeypatch.setattr(runner.stacks, "prompt", True)
    runner.submit(one, waits=True)
    assert noted.kept == [False, True, False, False, False]


# Waits.


def test_a_wait_whose_time_is_up_returns() -> None:
    worker = Worker(FakeManager(most_waits=3))
    worker.runner.adopt()
    assert not worker.runner.wait_any((call_of([0], worker).call,), perf_counter())


def test_a_wait_of_another_thread_whose_time_is_up_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(FakeManager())
    sleeps: list[float] = []

    def sleep(_calls: Sequence[Call], timeout: float) -> None:
        sleeps.append(timeout)
        assert len(sleeps) < 9, "it sleeps on"

    monkeypatch.setattr(worker.runner._waiting, "_sleep", sleep)
    assert not worker.runner.wait_any((call_of([0], worker).call,), perf_counter())
    assert not sleeps


def test_a_prompt_wait_leaves_the_worker_to_a_short_task(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(FakeManager(most_waits=3))
    runner = worker.runner
    runner.adopt()
    call = call_of([0], worker).call
    runner.submit(call_of([0], worker, function=lambda _: runner.ring(call)).call)
    monkeypatch.setattr(waiting_module, "may_begin", lambda *_: True)
    assert runner.wait_any((call,), promptly=True)


# The end of the run.


class Leaving(FakeManager):
    """The root of a run whose workers are gone when it has waited once."""

    def absent(self) -> set[int]:
        return {1, 2} if self.waits else set()


def test_the_root_waits_for_nobody_who_is_gone() -> None:
    comm = Leaving(rank=0, size=3, most_waits=1)
    assert Worker(comm).stop(60.0)
    assert comm.waits == 1


def test_lines_under_way_and_results_leave_before_a_worker_says_that_it_has_stopped() -> None:
    comm = FakeManager()
    worker = Worker(comm)
    worker.say("stdout", "one\n")
    worker.say("stdout", "two\n")
    worker.ship(0, segment(0))
    with worker.lock:
        worker.send(0, Stopped({}))
    assert [type(each) for each in comm.messages()] == [Output, Output, Results, Stopped]
