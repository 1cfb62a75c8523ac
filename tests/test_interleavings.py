"""The shell in every interleaving of its threads, and that bugs put back are found."""

from __future__ import annotations

import os
import time

import pytest

from dtm import dtm
from dtm.testing.interleaving import InterleavingError, Interleavings

SCHEDULES = int(os.environ.get("DTM_SCHEDULES", "10000"))


def square(x: int) -> int:
    time.sleep(0.001)
    return x * x


def mapping() -> list[int]:
    return dtm.map(square, range(6))


def test_a_map_is_right_in_every_schedule() -> None:
    explored = Interleavings(mapping, [x * x for x in range(6)]).random(SCHEDULES // 50)
    assert explored.schedules == SCHEDULES // 50


def test_a_seed_replays_a_schedule() -> None:
    program = Interleavings(mapping, [x * x for x in range(6)])
    first = program.replay("pct 17 2000 3")
    assert program.replay("pct 17 2000 3") == first
    assert program.replay("pct 18 2000 3") != first


def test_a_wrong_result_is_found_with_its_seed() -> None:
    with pytest.raises(InterleavingError, match="seed of this schedule is 'chess'"):
        Interleavings(mapping, []).systematic(0)
