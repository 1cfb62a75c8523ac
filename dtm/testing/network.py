"""A network in virtual time: when a message that is sent now arrives, and managers on it.

The noun is a :class:`Network`: latency by distance (same host, same rack, far),
bandwidth, the processor time that a message costs at each end, jitter.  It keeps
the order of each pair of ranks, whatever the jitter and the sizes.  What real machines
have besides costs nothing unless it is given: pickling, workers that sleep and have to be
woken or look from time to time, workers that share cores.

Rejected: contention of links.  It would tie the figures to one machine's wiring;
what the balancer is proved against is the cost at the ends, which is what a
process pays on every fabric.

:class:`SimulatedManager` joins the threads of one process over such a network.  Nothing is
delayed in real time; each rank has a clock in virtual time, which sending and receiving push on
(Lamport 1978), so whatever runs on it can be timed as if it ran on a cluster.

Threads: :class:`Links` belongs to one; the managers are as every manager is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from random import Random
from threading import Condition
from typing import Any

from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.options import count, number
from dtm.testing.machine import messages, pickling, usable_cores

PRUNED_LINKS = 256
_ENDS = ("message_send", "message_receive")
_SECONDS = (
    "near", "middle", "far", "seconds_a_byte", "cpu", "jitter",
    "item_send", "item_receive", "result_send", "result_receive", "wake", "spin", "poll",
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """How long messages take, and what they cost.

    By default nothing is pickled, who sleeps hears at once, and each worker has a core.

    Attributes:
        host: ranks in a host.
        rack: hosts in a rack.
        near: seconds one way between ranks of a host.
        middle: seconds one way between hosts of a rack.
        far: seconds one way between racks.
        seconds_a_byte: the inverse of the bandwidth.
        cpu: seconds of processor time at each end of a message.
        jitter: a message takes up to this many seconds more.
        message_send, message_receive: seconds of processor time at one end; None: ``cpu``.
        item_send, item_receive: seconds of processor time to pickle an item that is sent, and to
            load it.  Whoever passes items on pays again.
        result_send, result_receive: the same of a result.  Who passes results on pays nothing.
        wake: seconds until a worker that sleeps runs when a message has come.
        spin: seconds for which a worker with nothing to do looks for messages before it sleeps.
        poll: seconds between two looks of a worker that sleeps at what comes from another host,
            if that cannot wake it (MPI); 0: it can.
        cores: of each host, shared by its workers as :mod:`dtm.testing.cores` says; None: one
            for each worker.
    """

    host: int = 64
    rack: int = 16
    near: float = 2e-6
    middle: float = 50e-6
    far: float = 50e-6
    seconds_a_byte: float = 1e-10
    cpu: float = 5e-6
    jitter: float = 0.0
    message_send: float | None = None
    message_receive: float | None = None
    item_send: float = 0.0
    item_receive: float = 0.0
    result_send: float = 0.0
    result_receive: float = 0.0
    wake: float = 0.0
    spin: float = 0.0
    poll: float = 0.0
    cores: int | None = None

    def __post_init__(self) -> None:
        for name in ("host", "rack"):
            count(name, getattr(self, name), least=1)
        for name in (*_SECONDS, *(each for each in _ENDS if getattr(self, each) is not None)):
            number(name, getattr(self, name))
        if self.cores is not None:
            count("cores", self.cores, least=1)

    @classmethod
    def measured(
        cls,
        items: Sequence[Any] = (),
        results: Sequence[Any] = (),
        *,
        seconds: float = 0.5,
        **given: Any,
    ) -> Network:
        """Return what this machine costs, measured now; it takes about a second.

        Messages, their latency and waking are those between two processes joined by a Unix socket.

        Args:
            items: some like those of the map that is to be simulated; none cost nothing.
            results: some like its results.
            seconds: about how long to measure, once a second process has started.
            given: attributes that are not measured, or not to be.

        Raises:
            RuntimeError: a second process cannot be started, or does not answer.
            TypeError: an attribute is given that there is none of.
            ValueError: one cannot be.
            Exception: whatever pickling an item raises.
        """
        number("seconds", seconds, positive=True)
        cls(**given)
        found: dict[str, Any] = {"cores": usable_cores()}
        found["item_send"], found["item_receive"] = pickling(items, seconds / 4)
        found["result_send"], found["result_receive"] = pickling(results, seconds / 4)
        found.update(messages(seconds / 2)._asdict())
        return cls(**{**found, **given})

    @property
    def sending(self) -> float:
        """Seconds of processor time to send a message."""
        return self.cpu if self.message_send is None else self.message_send

    @property
    def receiving(self) -> float:
        """Seconds of processor time to receive a message."""
        return self.cpu if self.message_receive is None else self.message_receive

    @property
    def shipping_items(self) -> float:
        """Seconds of processor time that it costs to ship an item, both ends together."""
        return self.item_send + self.item_receive

    @property
    def shipping_results(self) -> float:
        """Seconds of processor time that it costs to ship a result, both ends together."""
        return self.result_send + self.result_receive

    def heard(self, source: int, to: int, since: float, now: float) -> float:
        """Return when ``to``, with nothing to do ``since`` then, looks at what comes ``now``."""
        slept = now - since - self.spin
        if slept <= 0.0:
            return now
        if self.poll and source // self.host != to // self.host:
            return now - slept + ceil(slept / self.poll) * self.poll
        return now + self.wake

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


class Switch:
    """What joins the managers of one run; ``managers`` are those of all ranks."""

    def __init__(self, size: int, network: Network | None = None, seed: int = 0) -> None:
        self.network = network or Network()
        self.links = Links(self.network, Random(seed))
        self.changed = Condition()
        self.managers = [SimulatedManager(self, rank, size) for rank in range(size)]

    def vanish(self, rank: int) -> None:
        """Let a rank go away without closing."""
        with self.changed:
            self.managers[rank].gone = True
            for other in self.managers:
                if other.rank != rank:
                    other.losses.append(LostPeer(rank, "its thread has ended"))
            self.changed.notify_all()


class SimulatedManager(CommunicationManager):
    """The manager of one rank, in a thread of its own.

    Attributes:
        clock: virtual seconds since the start of the run.
        inbox: messages that have come, as (sender, arrival, frames).
        gone: whether it has closed or vanished.
        losses: ranks that are lost and have not been told of.
    """

    def __init__(self, switch: Switch, rank: int, size: int) -> None:
        network = switch.network
        self.rank = rank
        self.size = size
        self.hosts = [f"host{other // network.host}" for other in range(size)]
        self.clock = 0.0
        self.gone = False
        self.losses: list[LostPeer] = []
        self._switch = switch
        self.inbox: deque[tuple[int, float, list[Frame]]] = deque()
        self._waiting = 0
        self._wakes = 0
        self._woken = False

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        """Put a copy of the frames into the inbox of another rank."""
        if rank == self.rank or not 0 <= rank < self.size:
            raise ValueError(f"rank {self.rank} cannot send to rank {rank} of {self.size}")
        copies: list[Frame] = [bytes(memoryview(frame)) for frame in frames]
        switch = self._switch
        with switch.changed:
            self.clock += switch.network.sending
            when = switch.links.arrival(self.rank, rank, self.clock, sum(map(len, copies)))
            receiver = switch.managers[rank]
            if not (receiver.gone or self.gone):
                receiver.inbox.append((self.rank, when, copies))
                switch.changed.notify_all()

    def receive(self) -> list[tuple[int, list[Frame]]]:
        """Return what has come."""
        with self._switch.changed:
            come, self.inbox = self.inbox, deque()
            for _, when, _ in come:
                self.clock = max(self.clock, when) + self._switch.network.receiving
        return [(sender, frames) for sender, _, frames in come]

    def wait(self, timeout: float) -> None:
        """Sleep until something comes, until woken, or until time is up."""
        with self._switch.changed:
            if self._woken:
                self._woken = False
                return
            wakes = self._wakes
            self._waiting += 1
            self._switch.changed.wait_for(
                lambda: self.inbox or self.losses or self._wakes != wakes, timeout
            )
            self._waiting -= 1

    def wake(self) -> None:
        """End the waits that are under way, or else the next one."""
        with self._switch.changed:
            if self._waiting:
                self._wakes += 1
                self._switch.changed.notify_all()
            else:
                self._woken = True

    def lost(self) -> list[LostPeer]:
        """Return the ranks that have vanished, each once."""
        with self._switch.changed:
            losses, self.losses = self.losses, []
        return losses

    def close(self, timeout: float) -> None:
        """Leave; all that was sent is there already."""
        with self._switch.changed:
            self.gone = True
