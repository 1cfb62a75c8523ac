"""The simulated manager keeps what every manager promises, and its clocks tell virtual time."""

from __future__ import annotations

from threading import Thread

import pytest

from dtm.comm.base import CommunicationManager
from dtm.testing import Scenario, check_communication_manager
from dtm.testing.network import Links, Network, SimulatedManager, Switch


class Factory:
    """Runs a scenario on threads of this process."""

    @staticmethod
    def vanish(manager: CommunicationManager) -> None:
        assert isinstance(manager, SimulatedManager)
        manager._switch.vanish(manager.rank)

    def __call__(self, scenario: Scenario, size: int) -> None:
        failures: list[BaseException] = []

        def play(manager: CommunicationManager) -> None:
            try:
                scenario(manager)
            except BaseException as error:
                failures.append(error)

        threads = [
            Thread(target=play, args=(manager,), daemon=True) for manager in Switch(size).managers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if failures:
            raise failures[0]


@pytest.mark.slow
def test_it_keeps_all_promises() -> None:
    verdict = check_communication_manager(Factory())
    assert verdict.not_tried == ()
    assert str(verdict) == "13 promises are kept"


def test_clocks_tell_what_messages_cost() -> None:
    network = Network(host=1, seconds_a_byte=0.0)
    here, there = Switch(2, network).managers
    here.send(1, [b"x"])
    assert there.receive() == [(0, [b"x"])]
    assert there.clock == pytest.approx(network.far + 2 * network.cpu)


def test_order_is_kept_whatever_the_jitter_and_the_sizes() -> None:
    from random import Random

    links = Links(Network(jitter=1e-3), Random(1))
    times = [links.arrival(0, 1, now * 1e-6, size) for now, size in enumerate([10**6, 1] * 50)]
    assert times == sorted(times)
    for to in range(2, 600):
        links.arrival(0, to, float(to), 1)
    assert len(links._last[0]) < 300


def test_near_messages_are_faster() -> None:
    network = Network(host=2, rack=2, near=1.0, middle=2.0, far=3.0)
    assert [network.latency(0, to) for to in (1, 2, 4)] == [1.0, 2.0, 3.0]
