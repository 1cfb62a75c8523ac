"""This machine is measured, within bounds, and what cannot be measured is said."""

from __future__ import annotations

import os
import sys
from time import perf_counter

import pytest

from dtm.testing import Network, Simulation, recorded
from dtm.testing.machine import START_SECONDS, pickling, usable_cores


def test_this_machine_is_measured() -> None:
    network = Network.measured([list(range(50))] * 8, [1.0] * 8, seconds=0.1, far=1e-3)
    assert 0.0 < network.near < 1.0
    assert 0.0 <= network.wake < 1.0
    assert 1e-6 < network.sending < 0.1
    assert 1e-6 < network.receiving < 0.1
    assert network.item_send > network.result_send > 0.0
    assert network.item_receive > network.result_receive > 0.0
    assert network.cores == usable_cores()
    assert network.far == 1e-3
    report = Simulation(4, recorded([5e-3] * 16), network=network, sleeping=True).run()
    assert 20e-3 < report.makespan < 80e-3


def test_what_is_given_is_not_overwritten() -> None:
    network = Network.measured(seconds=0.02, cores=None, message_send=1e-3)
    assert network.cores is None
    assert network.sending == 1e-3
    assert network.shipping_items == network.shipping_results == 0.0


def test_values_that_are_larger_cost_more() -> None:
    small, large = (pickling([list(range(size))] * 8, 0.01) for size in (10, 10_000))
    assert small[0] < large[0]
    assert small[1] < large[1]
    assert pickling([], 0.01) == (0.0, 0.0)


def test_what_cannot_be_measured_is_refused_before_anything_is_started() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    with pytest.raises(ValueError, match="seconds must be"):
        Network.measured(seconds=0.0)
    with pytest.raises(ValueError, match="cores must be"):
        Network.measured(cores=0)
    with pytest.raises(TypeError, match="speed"):
        Network.measured(speed=1.0)
    with pytest.raises(Exception, match="pickle"):
        Network.measured([memoryview(b"")])
    assert before >= (set(os.listdir("/proc/self/fd")) if before else set())


@pytest.mark.parametrize(("program", "why"), [("/nowhere", "No such file"), ("true", "not answer")])
def test_a_process_that_cannot_answer_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    began = perf_counter()
    with pytest.raises(RuntimeError, match=f"this machine cannot be measured: .*{why}"):
        Network.measured()
    assert perf_counter() - began < 2 * START_SECONDS
