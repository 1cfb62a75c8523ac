"""A network in virtual time: when a message that is sent now arrives.

The noun is a :class:`Network`: latency by distance (same host, same rack, far),
bandwidth, the processor time that a message costs at each end, jitter.  It keeps
the order of each pair of ranks, whatever the jitter and the sizes.

Rejected: contention of links.  It would tie the figures to one machine's wiring;
what the balancer is proved against is the cost at the ends, which is what a
process pays on every fabric.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

PRUNED_LINKS = 256


@dataclass(frozen=True)
class Network:
    """How long messages take.

    Attributes:
        host: ranks in a host.
        rack: hosts in a rack.
        near: seconds one way between ranks of a host.
        middle: seconds one way between hosts of a rack.
        far: seconds one way between racks.
        seconds_a_byte: the inverse of the bandwidth.
        cpu: seconds of processor time at each end of a message.
        jitter: a message takes up to this many seconds more.
    """

    host: int = 64
    rack: int = 16
    near: float = 2e-6
    middle: float = 50e-6
    far: float = 50e-6
    seconds_a_byte: float = 1e-10
    cpu: float = 5e-6
    jitter: float = 0.0

    def latency(self, source: int, to: int) -> float:
        """Return the seconds that an empty message takes one way."""
        here, there = source // self.host, to // self.host
        if here == there:
            return self.near
        return self.middle if here // self.rack == there // self.rack else self.far


Slowdown = Callable[[int, int, float], float]


class Links:
    """The links of one run: when what is sent now arrives.

    Args:
        network: the costs.
        random: gives the jitter.
        slowdown: returns extra seconds for a message from, to, sent at a time.
    """

    def __init__(self, network: Network, random: Random, slowdown: Slowdown | None = None) -> None:
        self._network = network
        self._random = random
        self._slowdown = slowdown
        self._last: dict[int, dict[int, float]] = {}

    def arrival(self, source: int, to: int, now: float, size: int) -> float:
        """Return when a message of ``size`` bytes that leaves now is there."""
        network = self._network
        when = now + network.latency(source, to) + size * network.seconds_a_byte
        if network.jitter:
            when += self._random.random() * network.jitter
        if self._slowdown is not None:
            when += self._slowdown(source, to, now)
        last = self._last.setdefault(source, {})
        when = max(when, last.get(to, 0.0))
        if len(last) > PRUNED_LINKS:
            self._last[source] = last = {rank: at for rank, at in last.items() if at > now}
        last[to] = when
        return when
