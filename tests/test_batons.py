"""The run token goes from thread to thread, one at a time, the longest ready first."""

from __future__ import annotations

from threading import Event, RLock, Thread

import pytest

from dtm.run.token import HOLDS, TRANSITIONS, Baton, Batons, Place

SECONDS = 30.0  # a bound, for what comes at once


class Started:
    """Batons whose new threads say that they run, and nothing else."""

    def __init__(self) -> None:
        self.begun: list[Baton] = []
        self.event = Event()
        self.batons = Batons(RLock(), self._begin, lambda: None)

    def _begin(self, baton: Baton) -> None:
        self.begun.append(baton)
        self.event.set()


def parked(started: Started) -> Baton:
    """Return a baton that has parked, its token given away."""
    baton = Baton(HOLDS)
    baton.go("parks")
    started.batons.hand_on()
    assert started.event.wait(SECONDS)
    return baton


def test_who_parks_hands_the_token_to_a_new_thread_if_there_is_no_other() -> None:
    started = Started()
    baton = parked(started)
    assert baton.place is Place.PARKED
    assert [each.place for each in started.begun] == [HOLDS]


def test_who_is_ready_gets_the_token_when_the_holder_has_nothing_to_do() -> None:
    started = Started()
    baton = parked(started)
    started.batons.make_ready(baton)
    assert baton.place is Place.READY
    holder = started.begun[0]
    thread = Thread(target=started.batons.become_spare, args=(holder,), daemon=True)
    thread.start()
    assert baton.sleep.acquire(timeout=SECONDS), "it is woken"
    assert (baton.place, holder.place) == (HOLDS, Place.SPARE)
    baton.go("parks")
    started.batons.hand_on()
    thread.join(SECONDS)
    assert not thread.is_alive(), "the spare thread is woken before another is started"
    assert holder.place is HOLDS
    assert started.batons.threads == 1


def test_what_comes_twice_makes_ready_once() -> None:
    started = Started()
    baton = parked(started)
    started.batons.make_ready(baton)
    started.batons.make_ready(baton)
    assert list(started.batons.ready) == [baton]


def test_a_visitor_that_queues_in_vain_runs_without_the_token() -> None:
    started = Started()
    visitor = Baton(Place.FREE, visitor=True)
    started.batons.visit()
    assert not started.batons.enter(visitor, 0.01)
    assert visitor.place is Place.FREE
    assert not started.batons.ready
    visitor.go("parks")
    started.batons.make_ready(visitor)
    assert visitor.place is Place.FREE, "it wants no token"
    assert visitor.sleep.acquire(timeout=SECONDS)
    started.batons.leave(visitor)
    assert not started.begun, "it had no token to hand on"


def test_a_visitor_that_leaves_with_the_token_hands_it_on() -> None:
    started = Started()
    baton = parked(started)
    started.batons.make_ready(baton)
    visitor = Baton(HOLDS, visitor=True)
    started.batons.visit()
    started.batons.leave(visitor)
    assert (visitor.place, baton.place) == (Place.FREE, HOLDS)


def test_the_end_of_the_run_wakes_who_queues() -> None:
    started = Started()
    baton = parked(started)
    started.batons.make_ready(baton)
    started.batons.release_all()
    assert baton.place is Place.FREE
    assert baton.sleep.acquire(timeout=SECONDS)


def test_a_sleep_that_an_exception_ends_leaves_nothing_behind() -> None:
    started = Started()
    baton = parked(started)
    started.batons.recover(baton)
    assert baton.place is Place.FREE
    started.batons.make_ready(baton)
    assert baton.place is Place.FREE, "what it waited for is of no concern any more"
    assert not started.batons.enter(baton, 0.01)
    baton.go("queues")
    started.batons.ready.append(baton)
    started.batons.recover(baton)
    assert (baton.place, len(started.batons.ready)) == (Place.FREE, 0)
    baton.sleep.release()
    started.batons.recover(baton)
    assert not baton.sleep.acquire(blocking=False), "no wake-up is left over"


def test_an_event_that_must_not_come_is_an_error() -> None:
    with pytest.raises(KeyError):
        Baton(Place.PARKED).go("given the token")
    assert "given the token" not in TRANSITIONS[Place.PARKED], "who is parked is made ready first"
