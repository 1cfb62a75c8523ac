"""Parts that cannot be sent: they come back, and stderr says so once."""

from __future__ import annotations

from time import perf_counter, sleep, thread_time
from typing import Any

import pytest

from dtm.core.granularity import Profile
from dtm.core.messages import Grant, Load
from dtm.run.shipping import MOST_TOLD, Shipping
from dtm.task import Call, Range
from dtm.wire.codec import Wire

LOAD = Load(1, 0.0, idle=False)


class Returned:
    """Shipping, and what it gives back."""

    def __init__(self) -> None:
        self.parts: list[tuple[Range, int | None]] = []
        wire = Wire(0, "worker 0", lambda *_: Profile())
        self.shipping = Shipping(wire, 1, lambda *part: self.parts.append(part))

    def send(self, *parts: Range) -> tuple[Range, ...]:
        """Return the parts that leave."""
        encoded = self.shipping.encoded(1, Grant(3, parts), LOAD)
        return () if encoded is None else encoded[0].parts


def part(function: Any, *items: Any) -> Range:
    return Range(Call(function, items, len(items), 0, Profile(), "map", key=1), 0, len(items))


def test_what_can_be_sent_leaves_and_the_rest_comes_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    returned, good = Returned(), part(abs, 1, 2)
    bad, worse = part(abs, 1, (x for x in ()), 3), part((x for x in ()).send, 1)
    assert returned.send(bad, good, worse) == (good,)
    assert returned.parts == [(bad, 1), (worse, None)]
    first, second = capsys.readouterr().err.splitlines()
    assert "item 1 of map(abs)" in first
    assert "the function of map(generator.send)" in second
    assert returned.send(bad) == ()
    assert returned.parts[2:] == [(bad, 1)]


def test_it_is_told_once_of_a_function_and_once_of_its_items(
    capsys: pytest.CaptureFixture[str],
) -> None:
    returned, stuck = Returned(), (x for x in ()).send
    for _ in range(3):
        assert returned.send(part(abs, (x for x in ()), 3), part(stuck, 1)) == ()
    assert len(returned.parts) == 6
    first, second = capsys.readouterr().err.splitlines()
    assert "item 0 of map(abs)" in first
    assert "the function of map(generator.send)" in second


def test_what_can_be_pickled_at_times_comes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    returned, moody = Returned(), part(abs, (x for x in ()))
    monkeypatch.setattr(returned.shipping._wire, "unsendable", lambda *_: None)
    assert returned.send(moody) == ()
    assert returned.parts == [(moody, None)]
    assert "item 0 of map(abs)" in capsys.readouterr().err


def test_a_range_does_not_age_while_its_costs_are_measured() -> None:
    class Slow:
        def __reduce__(self) -> Any:
            sleep(0.02)
            return str, ()

    shipping, work = Returned().shipping, part(abs, Slow(), Slow())
    work.born = 1.0
    began = perf_counter()
    shipping.items_cost(work, 0.0)
    assert 0.02 <= work.born - 1.0 <= perf_counter() - began


def test_what_took_long_to_weigh_is_weighed_again_when_more_can_be_saved_or_later() -> None:
    weighed = []

    class Slow:
        def __reduce__(self) -> Any:
            weighed.append(1)
            sleep(0.001)
            end = thread_time() + 0.024  # between 8 and 16 times what may be spent
            while thread_time() < end:
                pass
            return str, ()

    shipping, held = Returned().shipping, Slow()
    profile = Profile()

    def cost(saved: float) -> float:
        call = Call(lambda _: held, (1,), 1, 0, profile, "map", key=1)
        return shipping.function_cost(Range(call, 0, 1), saved)

    def times(saved: float) -> int:
        before = len(weighed)
        cost(saved)
        return len(weighed) - before

    assert times(0.01) == 1
    assert times(0.01) == 0
    assert times(1.0) == 1
    assert [times(0.01) for _ in range(5)] == [0, 0, 0, 0, 1]


def test_what_was_told_long_ago_may_be_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    returned = Returned()

    def told(name: str) -> int:
        def function() -> None:
            pass

        function.__qualname__ = name
        returned.send(part(function, (x for x in ())))
        return len(capsys.readouterr().err.splitlines())

    assert [told("f"), told("f")] == [1, 0]
    for number in range(MOST_TOLD):
        told(str(number))
    assert told("f") == 1
