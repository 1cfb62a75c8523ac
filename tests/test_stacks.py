"""The stacks of the main thread: one runs, ready ones go on in order, the end unwinds the rest."""

from __future__ import annotations

from threading import RLock
from time import perf_counter
from typing import Any

import pytest

from dtm.core.granularity import Profile
from dtm.core.scheduler import Counters
from dtm.core.wait_policy import STALE_SECONDS, UNKNOWN_SECONDS, UNTAKEN_SECONDS
from dtm.run.stacks import PARKED, READY, Stack, Stacks
from dtm.task import Call, Range


def call() -> Call:
    return Call(len, [()], 1, 0, None, "apply")


class Worker:
    """Stacks whose servers run what is in ``todo``, and else go back to whoever is to go on."""

    def __init__(self) -> None:
        self.todo: list[Any] = []
        self.lock = RLock()
        self.nudges = 0
        self.counters = Counters()
        self.stacks = Stacks(self.lock, self.serve, self.nudge, self.counters)
        self.stacks.adopt()
        self.first = self.stacks.current

    def nudge(self) -> None:
        self.nudges += 1

    def serve(self) -> None:
        while True:
            successor = self.stacks.choose(self.stacks.may_go_on())
            if successor is not None:
                self.stacks.retire(successor)
            elif self.todo:
                self.todo.pop(0)()
            else:
                self.stacks.retire(self.stacks.choose(self.first) or self.first)


def complete(one: Call) -> None:
    one.account(0, [0])
    for listener in one.listeners or ():
        listener()


def test_a_stack_that_parks_goes_on_when_its_call_is_complete() -> None:
    worker, one = Worker(), call()
    worker.todo.append(lambda: complete(one))
    worker.stacks.park([one])
    assert one.missing == 0
    assert worker.stacks.current is worker.first
    assert (worker.counters.parked, worker.nudges) == (1, 1)


def test_no_stack_parks_for_what_is_complete() -> None:
    worker, one = Worker(), call()
    complete(one)
    worker.stacks.park([one])
    assert worker.counters.parked == 0


def test_a_listener_is_withdrawn_from_calls_that_are_not_complete() -> None:
    worker, one, other = Worker(), call(), call()
    worker.todo.append(lambda: complete(one))
    worker.stacks.park([one, other])
    assert other.listeners == []


def test_ready_stacks_go_on_in_the_order_in_which_they_became_ready() -> None:
    worker = Worker()
    calls = {name: call() for name in ("one", "two", "main")}
    order: list[str] = []

    def wait(name: str) -> None:
        worker.stacks.park([calls[name]])
        order.append(name)

    def ends() -> None:
        for name in ("two", "one", "main"):
            complete(calls[name])

    worker.todo += [lambda: wait("one"), lambda: wait("two"), ends]
    wait("main")
    assert order == ["two", "one", "main"]


def test_servers_are_used_again() -> None:
    worker = Worker()
    for _ in range(5):
        one = call()
        worker.todo.append(lambda one=one: complete(one))
        worker.stacks.park([one])
    assert len(worker.stacks._servers) == 1


def test_giving_way_without_a_ready_stack_returns_at_once() -> None:
    worker = Worker()
    worker.stacks.give_way()
    assert not worker.stacks._servers


def test_an_exception_of_a_server_comes_out_of_the_first_stack() -> None:
    worker, one = Worker(), call()

    def fail() -> None:
        raise KeyboardInterrupt

    worker.todo.append(fail)
    with pytest.raises(KeyboardInterrupt):
        worker.stacks.park([one])
    assert worker.stacks.current is worker.first
    assert one.listeners == []
    complete(one)
    assert not worker.stacks.ready, "it is not made ready by what it waits for no longer"


def test_the_end_unwinds_parked_stacks_once_and_past_handlers_of_exceptions() -> None:
    worker, one, never = Worker(), call(), call()
    seen: list[str] = []

    def abandoned() -> None:
        try:
            worker.stacks.park([never])
        except Exception:
            seen.append("swallowed")
        finally:
            seen.append("finally")

    worker.todo += [abandoned, lambda: complete(one)]
    worker.stacks.park([one])
    assert seen == []
    worker.stacks.unwind()
    assert seen == ["finally"]


# Prompt waits.


def parked(worker: Worker, ran: float) -> Stack:
    stack = worker.stacks._new(worker.first.greenlet)
    stack.ran = ran
    stack.go("parks")
    return stack


def test_a_prompt_stack_goes_on_when_its_time_has_come() -> None:
    worker = Worker()
    prompt = parked(worker, 0.0)
    worker.stacks.prompt.append(prompt)
    prompt.until = perf_counter() + 60.0
    assert worker.stacks.may_go_on() is None
    prompt.until = perf_counter()
    assert worker.stacks.may_go_on() is prompt


def test_a_ready_stack_goes_on_before_a_deadline_only_if_it_has_run_for_no_longer() -> None:
    worker = Worker()
    short, long, prompt = parked(worker, 0.01), parked(worker, 50.0), parked(worker, 0.0)
    for stack in (long, short):
        stack.resume()
    worker.stacks.prompt.append(prompt)
    prompt.until, prompt.slack = perf_counter() + 20.0, float("inf")
    assert worker.stacks.may_go_on() is short
    prompt.until = perf_counter() + 100.0
    assert worker.stacks.may_go_on() is long


def test_a_wait_without_a_deadline_keeps_no_ready_stack_back() -> None:
    worker = Worker()
    long, prompt = parked(worker, 50.0), parked(worker, 0.0)
    long.resume()
    worker.stacks.prompt.append(prompt)
    prompt.slack = 0.05
    assert (long.place, prompt.place) == (READY, PARKED)
    assert worker.stacks.may_go_on() is long


def test_main_leaves_what_nothing_is_known_of_to_others_for_a_bounded_time() -> None:
    """It waits for the first of two calls: one stands here, the other is here too or is away."""
    worker = Worker()
    calls = [Call(len, [()], 1, key, Profile(), "apply") for key in (1, 2)]
    for each in calls:
        each.range = Range(each, 0, 1)
    work, now = calls[0].range, 1000.0
    assert work is not None
    stacks = worker.stacks
    assert stacks.untaken(work, now) == now - UNTAKEN_SECONDS
    with stacks.promptly(calls, float("inf"), 0.05, strict=True):
        assert stacks.untaken(work, now) == now - STALE_SECONDS
        calls[1].range = Range(calls[1], 1, 1)
        assert stacks.untaken(work, now) == now - UNKNOWN_SECONDS
        complete(calls[1])
        assert stacks.untaken(work, now) == now - STALE_SECONDS
        calls[0].profile.ended = True
        assert stacks.untaken(work, now) == now - UNTAKEN_SECONDS


def test_nobody_waits_for_a_server_whose_range_was_interrupted() -> None:
    worker = Worker()

    def interrupted() -> None:
        worker.stacks.begin()
        raise KeyboardInterrupt

    worker.todo.append(interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.stacks.park([call()])
    assert worker.stacks.current is worker.first
    assert not worker.stacks.wait_for_later_ones()
    assert worker.stacks.aside() == []
