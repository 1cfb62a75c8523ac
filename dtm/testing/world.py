"""The simulated run: its workers, its clock, and what is under way between them.

Events stand in a heap by time, then by the order in which they were made, so the
same seed gives the same run.  There are two sorts: a message arrives, and an alarm
of a worker goes off (see :class:`dtm.testing.simulated_worker.Simulated`).

A run has phases, which follow each other by ``TRANSITIONS``: SETTLING (``main`` has not
begun; idle workers look for work until they fall silent), RUNNING, STOPPING (``main`` has
returned), OVER.

Threads: one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple

from dtm.core.balancer import Balancer
from dtm.core.messages import MESSAGES, Results
from dtm.core.relay import MANY
from dtm.core.scheduler import Scheduler
from dtm.core.shutdown import Stage
from dtm.errors import WorkerLostError
from dtm.run.worker import FOUR_ROUND_TRIPS
from dtm.task import Call, Range
from dtm.testing.cores import Cores
from dtm.testing.faults import Fault, Faults
from dtm.testing.laws import Law
from dtm.testing.mail import Mail
from dtm.testing.network import Links, Network
from dtm.testing.programs import Inner
from dtm.testing.report import Report
from dtm.testing.simulated_runner import Frame, State
from dtm.testing.simulated_worker import Simulated

SHIPPING_SECONDS = 2e-6
SILENT_SECONDS = 50e-3  # after so long with nothing to run, nobody has anything left to say
PATIENCE = 0.8e-3  # a thread that waits for the interpreter while a task runs gets it within
_MASK = (1 << 64) - 1
NEVER = float("inf")
_NUMBERS = {cls: number for number, cls in enumerate(MESSAGES, 100)}


class Phase(Enum):
    """Where a run stands."""

    SETTLING = "settling"
    RUNNING = "running"
    STOPPING = "stopping"
    OVER = "over"


TRANSITIONS: dict[Phase, dict[str, Phase]] = {
    Phase.SETTLING: {"main begins": Phase.RUNNING, "worker lost": Phase.OVER},
    Phase.RUNNING: {
        "main returns": Phase.STOPPING,
        "worker lost": Phase.OVER,
        "root ended": Phase.OVER,
    },
    Phase.STOPPING: {"root ended": Phase.OVER, "worker lost": Phase.OVER},
    Phase.OVER: {},
}


class Loss(NamedTuple):
    """The communication manager of the root says that a worker is lost."""

    rank: int
    reason: str


def item(_: object) -> None:
    """Stand for the function of every map."""


class World:
    """A run of many workers in virtual time.

    Args:
        program: what ``main`` does.
        speeds: of each worker; 1 takes a task as long as it says.
        network: the costs of messages.
        seed: of all that is left to chance.
        patience: a worker in the middle of a task answers after up to this many seconds.
        faults: what goes wrong.
        watch: called after every event.
        silent: called when the idle workers must have fallen silent.
        balancer: makes the balancers.
        minimum: seconds of work worth sending.
        known: an estimate for the tasks of the first map, as if it had run before.
        relay_from: from how many workers on results go home by way of others.
        settle: whether ``main`` begins only when the idle workers are silent.
        sleeping: whether the bodies of tasks sleep and so need no core.
    """

    def __init__(
        self,
        program: Inner,
        speeds: Sequence[float],
        *,
        network: Network,
        seed: int = 0,
        patience: float = PATIENCE,
        faults: Sequence[Fault] = (),
        watch: Callable[[World, Simulated], None] | None = None,
        silent: Callable[[World], None] | None = None,
        balancer: Callable[..., Balancer] = Balancer,
        minimum: float = FOUR_ROUND_TRIPS,
        settle: bool = True,
        known: float | None = None,
        relay_from: int = MANY,
        sleeping: bool = False,
    ) -> None:
        self.network = network
        self.sleeping = sleeping
        self.sleeps = network.wake > 0.0 or network.poll > 0.0
        self.phase = Phase.SETTLING
        self.now = 0.0
        self.failure: BaseException | None = None
        self.function: Callable[[object], None] = item
        self.returned = NEVER
        self.calls: dict[int, Call] = {}
        self.failed: list[Call] = []
        self.in_flight: dict[int, tuple[int, int, Mail]] = {}
        self.size = size = len(speeds)
        self._random = Random(seed)
        self._patience = patience
        self._faults = Faults(faults)
        self._links = Links(network, self._random, self._faults.slowdown)
        self._watch = watch
        self._silent = silent
        self._settle = settle
        self._program = program
        self._heap: list[tuple[float, int, Any, Any]] = []
        self._made = 0
        self._hash = 0
        self._started = 0.0
        self._changed = 0.0
        self._lost: str | None = None
        self._maimed = False
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._root_messages = 0
        self._report = Report(size)
        hosts = _hosts(size, network)
        self._capacity = _capacity(speeds, network) if hosts and not sleeping else sum(speeds)
        self.costly = bool(hosts) or network.shipping_items + network.shipping_results > 0.0
        items = _appraise(network.shipping_items)
        results = _appraise(network.shipping_results)
        self.workers = []
        for rank, speed in enumerate(speeds):
            chance = Random(seed * size + rank)
            scheduler = Scheduler(rank, size, chance, minimum, 1, items, results, balancer)
            scheduler.relay.many = relay_from
            cores = hosts[rank // network.host] if hosts else None
            self.workers.append(Simulated(self, scheduler, speed, cores))
        if known is not None:
            self.workers[0].scheduler.granularity.profile(item, 0).assume(known)

    @property
    def watched(self) -> bool:
        """Whether somebody looks on after every event."""
        return self._watch is not None

    @property
    def events(self) -> int:
        """How many events there have been."""
        return self._report.events

    @property
    def stopping(self) -> bool:
        """Whether ``main`` has returned, or cannot, for somebody has died."""
        return self._maimed or self.phase in (Phase.STOPPING, Phase.OVER)

    @property
    def unstruck(self) -> tuple[Fault, ...]:
        """The faults whose event has not come."""
        return self._faults.left

    def _go(self, event: str) -> None:
        self.phase = TRANSITIONS[self.phase][event]

    # What workers ask of their world.

    def alarm(self, when: float, worker: Simulated, kind: str) -> None:
        """Have an alarm of a worker go off."""
        self._made += 1
        heappush(self._heap, (when, self._made, worker, kind))

    def post(self, sender: Simulated, to: int, mail: Mail) -> None:
        """Send a message that leaves at the sender's clock."""
        kind = type(mail.message).__name__
        size = mail.bytes = mail.size()
        self._messages[kind] += 1
        self._bytes[kind] += size
        if sender.rank == 0 or to == 0:
            self._root_messages += 1
        if self.phase is Phase.STOPPING:
            self._count_late(sender)
        self._carry(sender, to, mail)
        if self._faults.echoes and isinstance(mail.message, Results):
            for pause in self._faults.echo(sender.rank, to):
                self._carry(sender, to, mail.again(), pause)

    def _carry(self, sender: Simulated, to: int, mail: Mail, pause: float = 0.0) -> None:
        self._made += 1
        when = self._links.arrival(sender.rank, to, sender.clock, mail.bytes) + pause
        if self._watch is not None:
            self.in_flight[self._made] = (sender.rank, to, mail)
        heappush(self._heap, (when, self._made, self.workers[to], mail))

    def _count_late(self, sender: Simulated) -> None:
        if sender.scheduler.stopping:
            self._report.shutdown += 1
        else:
            self._report.late += 1

    def delay(self) -> float:
        """Return how long a thread waits for the interpreter while a task runs."""
        return self._random.random() * self._patience

    def called(self, call: Call) -> None:
        """Note a call that a task has made."""
        if self._watch is not None:
            self.calls[id(call)] = call
            self._changed = self.now

    def collected(self, call: Call) -> None:
        """Check the results that a task has waited for."""
        self._changed = self.now
        if self.calls.pop(id(call), None) is not None and call.failure is not None:
            self.failed.append(call)
        if call.failure is None:
            values = call.values()
            if len(values) != call.size or any(map(_differ, values, call.items)):
                raise Law.DELIVERED_ONCE.broken(f"the results of {call!r} are not its items'")

    def main_returned(self, worker: Simulated) -> None:
        """``main`` is over: end the run."""
        self.returned = worker.clock
        for each in self.workers:
            each.returned(self.returned)
        if self._silent is not None and self._left_alone():
            self._silent(self)
        self._count()
        self._go("main returns")
        worker.flush()
        worker.perform(worker.scheduler.stop())
        if worker.act_checker is not None:
            worker.act_checker.told_to_stop()

    def _left_alone(self) -> bool:
        """Whether nothing but ``main`` has run for so long that all others must be silent.

        It is not alone with work that was cancelled without its worker's knowledge: who has
        some ready looks for somebody to give it to.
        """
        last = max([self._changed, *(worker.end for worker in self.workers[1:])])
        ready = any(work.left for each in self.workers for work in each.scheduler.deque)
        return last + SILENT_SECONDS < self.now and not (ready or self._faults.given)

    def ended(self, worker: Simulated, reason: str | None) -> None:
        """The run is over for a worker."""
        worker.leave()
        if worker.rank == 0:
            self._lost = self._lost or reason
            self._go("root ended")

    # The run.

    def run(self, most_events: int = 1 << 62) -> Report:
        """Simulate to the end.

        Raises:
            WorkerLostError: a worker was lost before ``main`` returned, or the root before the end.
            InvariantError: a law of :mod:`dtm.testing.invariants` was broken, or
                nothing happens any more though ``main`` has not returned.
        """
        for worker in self.workers[1:]:
            worker.advance()
        if self._settle:
            self._events(most_events)
            if self._silent is not None and not self.stopping:
                self._silent(self)
        if self.phase is not Phase.OVER:
            self._begin()
            self._events(most_events)
        if self._lost is not None:
            raise WorkerLostError(self._lost)
        if self.phase is not Phase.OVER:
            self._stuck()
        return self._finish()

    def _begin(self) -> None:
        report = self._report
        report.settling = sum(self._messages.values())
        self._root_messages = 0
        report.steals_asked, report.steals_won = self._steals()
        self._messages.clear()
        self._bytes.clear()
        self._go("main begins")
        root = self.workers[0]
        root.clock = self._started = max(self.now, root.clock)
        main = Frame(None, root.clock)
        main.steps = self._program.steps()
        root.stack.append(main)
        root.service()
        root.advance()
        if self._watch is not None:
            self._watch(self, root)

    def _events(self, most: int) -> None:
        heap, strikes, watch = self._heap, self._faults.any, self._watch
        report = self._report
        while heap and self.phase is not Phase.OVER:
            when, number, worker, what = heappop(heap)
            if worker.frozen > when:
                heappush(heap, (worker.frozen, number, worker, what))
                continue
            self.now = when
            report.events += 1
            if report.events > most:
                raise Law.GETS_ON.broken(f"no end after {most} events")
            self._hash = hash((self._hash, when, worker.rank, *mark(what)))
            if strikes:
                self._strike(when)
                if worker.frozen > when:
                    heappush(heap, (worker.frozen, number, worker, what))
                    continue
            self._happen(when, number, worker, what)
            known = worker.scheduler.balancer
            held = len(known.reports) + len(known.waiting) + len(known.tied) + len(known.asked)
            if held > report.neighbourhood:  # noqa: PLR1730 - once an event, and max is slow
                report.neighbourhood = held
            if watch is not None:
                watch(self, worker)

    def _happen(self, when: float, number: int, worker: Simulated, what: Any) -> None:
        if self.phase is Phase.OVER:
            return
        if type(what) is Mail:
            if self._watch is not None:
                del self.in_flight[number]
            if worker.state is not State.GONE:
                worker.inbox.append((what.sender, what))
                worker.arrived(when)
        elif type(what) is Loss:
            self.lose(what.rank, what.reason)
        elif worker.state is not State.GONE:
            worker.alarm(when, what)

    def _strike(self, now: float) -> None:
        for fault in self._faults.due(self._report.events):
            fault.strike(self, now)

    def die(self, rank: int, noticed: float, reason: str) -> None:
        """A worker is gone; the root learns of it a little later."""
        self.workers[rank].leave()
        self._maimed = True
        if rank == 0:
            self.lose(rank, reason)
            return
        self._made += 1
        heappush(self._heap, (noticed, self._made, self.workers[0], Loss(rank, reason)))

    def freeze(self, rank: int, until: float) -> None:
        """A worker stands still for a while."""
        self.workers[rank].freeze(self.now, until)

    def slow(self, rank: int, times: float) -> None:
        """A worker is slower from now on."""
        self.workers[rank].slow(self.now, times)

    def lose(self, rank: int, reason: str) -> None:
        """The root learns that a worker is gone, or seems to be.

        When ``main`` has returned, that is no error any more, unless it is the root: the root
        does not wait for who has not said yet that it stopped, and heeds no other.
        """
        if self.phase is Phase.OVER:
            return
        what = f"worker {rank} was lost: {reason}"
        if rank and self.phase is Phase.STOPPING:
            self._report.lost = what
            if self.workers[rank].scheduler.shutdown.stage is Stage.STOPPED:
                return
        else:
            self._lost = what
        self._go("worker lost")

    def _stuck(self) -> None:
        lines = [
            f"  worker {worker.rank}: {worker.scheduler.balancer.mode.value}, "
            f"{len(worker.scheduler.deque)} ranges, {len(worker.parked)} parked"
            for worker in self.workers[:16]
        ]
        raise Law.GETS_ON.broken("nothing happens, and the run is not over\n" + "\n".join(lines))

    # The report.

    def _count(self) -> None:
        report = self._report
        report.messages = dict(self._messages)
        report.bytes = dict(self._bytes)
        asked, won = self._steals()
        report.steals_asked = asked - report.steals_asked
        report.steals_won = won - report.steals_won
        report.root_messages = self._root_messages

    def _steals(self) -> tuple[int, int]:
        each = [worker.scheduler.counters for worker in self.workers]
        return sum(one.steals_asked for one in each), sum(one.steals_won for one in each)

    def _finish(self) -> Report:
        report = self._report
        workers = self.workers
        report.makespan = self.returned - self._started
        report.work = sum(worker.busy * worker.speed for worker in workers)
        report.capacity = self._capacity
        report.executed = sum(worker.scheduler.counters.items for worker in workers)
        firsts = [worker.first for worker in workers if worker.first is not None]
        if len(firsts) == self.size:
            report.spread = max(firsts) - self._started
        report.idle = [report.makespan - worker.busy for worker in workers]
        report.trace = f"{self._hash & _MASK:016x}"
        report.failure = self.failure
        return report


def _differ(value: object, expected: object) -> bool:
    return value is not expected


def _appraise(seconds: float) -> Callable[[Range, float], float]:
    cost = max(SHIPPING_SECONDS / 2, seconds)
    return lambda *_: cost


def _hosts(size: int, network: Network) -> list[Cores | None]:
    """Return the cores of each host, None where each worker has one of its own."""
    if network.cores is None:
        return []
    numbers = [min(network.host, size - first) for first in range(0, size, network.host)]
    return [Cores(network.cores) if each > network.cores else None for each in numbers]


def _capacity(speeds: Sequence[float], network: Network) -> float:
    """Return what all workers can do together where those of a host share its cores."""
    assert network.cores is not None
    hosts = [speeds[lo : lo + network.host] for lo in range(0, len(speeds), network.host)]
    return sum(sum(each) * min(1.0, network.cores / len(each)) for each in hosts)


def mark(what: Any) -> tuple[int, ...]:
    """Return what tells events of one worker at one time apart."""
    if type(what) is Mail:
        return what.sender, _NUMBERS[type(what.message)], what.bytes
    return (len(what),)
