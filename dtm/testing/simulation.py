"""Simulation of whole runs in virtual time.

:class:`Simulation` runs the production scheduler, ledger, balancer and deque as many
workers in one process, over a network in virtual time.  Same arguments, same seed
and same code give the same run, to the last event::

    from dtm.testing import Network, Simulation, exponential, flat

    program = flat(25_600, exponential(0.01), seed=1)
    report = Simulation(256, program, network=Network(host=64), seed=1).run()
    print(report.makespan, report.efficiency, report.messages, report.trace)

After each event the laws of :mod:`dtm.testing.invariants` are checked in small
runs (``check=None``), in all runs (``check=True``) or in none (``check=False``).

:func:`check_communication_manager` puts a communication manager through all that one
owes, see :mod:`dtm.testing.conformance`.

Threads: one, for the simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from dtm.core.balancer import Balancer
from dtm.core.relay import MANY
from dtm.options import count, number
from dtm.run.worker import FOUR_ROUND_TRIPS
from dtm.testing import end_invariants, invariants
from dtm.testing.faults import (
    Echo,
    Fault,
    check_ranks,
)
from dtm.testing.network import Network
from dtm.testing.programs import (
    Inner,
    Script,
    random_tree,
)
from dtm.testing.report import Report
from dtm.testing.world import PATIENCE, World

SMALL = 32
LONG_SECONDS = 0.2


class Simulation:
    """A run of many workers in virtual time.

    Args:
        workers: how many.
        program: what ``main`` does; see :mod:`dtm.testing.programs`.
        network: the costs of messages.
        speeds: how fast each worker runs the bodies of tasks; a number for all of them.  Messages
            cost all the same; a worker slow in all it does is a fault, :class:`Crawl`.
        seed: of all that is left to chance while it runs.  A program made with the same seed
            has its durations from the same stream of numbers; give it another where that matters.
        patience: a worker in the middle of a task answers within this many seconds; None: within
            0.8 ms, which its load-balancer thread waits for the interpreter, or at once where
            bodies sleep.
        faults: what goes wrong.
        check: whether to check the invariants after every event; None: up to 32 workers.
        balancer: makes the balancers.
        minimum: seconds of work worth sending.
        settle: whether ``main`` begins when the idle workers have fallen silent.
        known: an estimate for the tasks of the first map, as if it had run before.
        relay_from: from how many workers on results go home by way of others.
        sleeping: whether the bodies of tasks sleep: then they need neither the interpreter nor, on
            a host with fewer ``cores`` than workers, a core.
    """

    def __init__(
        self,
        workers: int,
        program: Inner,
        *,
        network: Network | None = None,
        speeds: float | Sequence[float] = 1.0,
        seed: int = 0,
        patience: float | None = None,
        faults: Sequence[Fault] = (),
        check: bool | None = None,
        balancer: Callable[..., Balancer] = Balancer,
        minimum: float = FOUR_ROUND_TRIPS,
        settle: bool = True,
        known: float | None = None,
        relay_from: int = MANY,
        sleeping: bool = False,
    ) -> None:
        count("workers", workers, least=1)
        if not isinstance(program, Inner):
            raise TypeError(f"program must be a Script or another Inner task, not {program!r}")
        speeds = _speeds(speeds, workers)
        count("seed", seed)
        if patience is None:
            patience = 0.0 if sleeping else PATIENCE
        number("patience", patience)
        if not isinstance(network, Network | None):
            raise TypeError(f"network must be a Network, not {network!r}")
        if not isinstance(sleeping, bool):
            raise TypeError(f"sleeping must be True or False, not {sleeping!r}")
        number("minimum", minimum)
        count("relay_from", relay_from, least=1)
        if known is not None:
            number("known", known, positive=True)
        check_ranks(faults, workers)
        watched = workers <= SMALL if check is None else check
        self._ran = False
        self._world = World(
            program,
            speeds,
            network=network or Network(),
            seed=seed,
            patience=patience,
            faults=faults,
            watch=invariants.check if watched else None,
            silent=end_invariants.check_silent if watched else None,
            balancer=balancer,
            minimum=minimum,
            settle=settle,
            known=known,
            relay_from=relay_from,
            sleeping=sleeping,
        )

    @property
    def world(self) -> World:
        """What is simulated, to look into."""
        return self._world

    def run(self, most_events: int = 1 << 62) -> Report:
        """Simulate to the end and return the figures.

        Raises:
            WorkerLostError: a worker was lost, or seemed to be, before ``main`` returned, or
                the root before the end.
            InvariantError: dtm broke one of its own laws, or got stuck.
            RuntimeError: it has run already.
        """
        count("most_events", most_events, least=1)
        if self._ran:
            raise RuntimeError("this simulation has run already: make another for another run")
        self._ran = True
        report = self._world.run(most_events)
        report.unstruck = self._world.unstruck
        if self._world.watched and report.lost is None:
            end_invariants.check_quiet(self._world)
        return report


def _speeds(speeds: float | Sequence[float], workers: int) -> list[float]:
    if isinstance(speeds, (int, float)):
        return [number("speeds", speeds, positive=True)] * workers
    if len(speeds) != workers:
        raise ValueError(f"speeds must be one for each of {workers} workers, not {len(speeds)}")
    return [number(f"speeds[{rank}]", speed, positive=True) for rank, speed in enumerate(speeds)]


def random_simulation(seed: int, workers: int = 8, tasks: int = 200, **options: Any) -> Simulation:
    """Return a run of a random tree of tasks in a random world, for the search of bugs.

    Some have a slow worker, some have messages that are late or results that come twice, some
    have tasks that fail, which others catch or not, and in some ``main`` goes on for long when all
    others are idle.

    Args:
        seed: of everything.
        workers: how many.
        tasks: about how many.
        options: of :class:`Simulation`, instead of random ones.
    """
    count("workers", workers, least=1)
    random = Random(seed)
    seconds, failing = random.choice((1e-5, 1e-4, 1e-3)), random.choice((0.0, 0.0, 0.02, 0.1))
    program = random_tree(seed, tasks, seconds, failing, caught=random.choice((0.0, 0.9, 1.0)))
    if random.random() < 0.5:
        program = Script(*program.steps(), LONG_SECONDS)
    slow = random.randrange(workers) if random.random() < 0.2 else None
    world = {
        "network": Network(host=random.choice((2, 4, 64)), jitter=random.choice((0.0, 20e-6))),
        "relay_from": random.choice((2, MANY, MANY, MANY)),
        "speeds": [0.1 if rank == slow else 1.0 for rank in range(workers)],
        "patience": random.choice((0.0, 0.1e-3, PATIENCE)),
        "settle": random.random() < 0.5,
        "faults": [Echo(random.choice((1e-5, 1e-3)))] if random.random() < 0.1 else [],
    }
    return Simulation(workers, program, seed=seed, **{**world, **options})


def check_invariants(world: World) -> None:
    """Check every law of :mod:`dtm.testing.invariants` as things stand.

    Raises:
        InvariantError: one is broken; the message says which.
    """
    invariants.check(world)


def greedy_makespan(durations: Sequence[float], speeds: Sequence[float]) -> float:
    """Return the time that a central queue without any cost takes: the standard to beat.

    Of the workers that are free first, the fastest takes the next task.
    """
    from heapq import heapify, heapreplace

    if not speeds:
        raise ValueError("speeds must be one for each worker, and there is none")
    heap = [(0.0, -speed) for speed in _speeds(speeds, len(speeds))]
    heapify(heap)
    last = 0.0
    for seconds in durations:
        free, slowness = heap[0]
        done = free - seconds / slowness
        heapreplace(heap, (done, slowness))
        last = max(last, done)
    return last
