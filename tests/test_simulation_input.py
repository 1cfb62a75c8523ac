"""What cannot be simulated is refused where it is given, by an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dtm.testing import (
    Calls,
    Death,
    Delay,
    Freeze,
    Inner,
    Network,
    Script,
    Simulation,
    Suspicion,
    binomial,
    constant,
    exponential,
    flat,
    geometric,
    greedy_makespan,
    measure,
    nested,
    random_simulation,
    random_tree,
    recorded,
)

NAN, INF = float("nan"), float("inf")
PROGRAM = Script([1e-3] * 4)


def simulate(**options: Any) -> Simulation:
    return Simulation(**{"workers": 4, "program": PROGRAM, **options})


REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("no workers", lambda: simulate(workers=0), "workers must be a whole number of at least 1"),
    ("half a worker", lambda: simulate(workers=2.5), "workers must be a whole number"),
    ("no program", lambda: simulate(program=None), "program must be a Script"),
    ("a list as program", lambda: simulate(program=[1.0]), "program must be a Script"),
    ("negative speed", lambda: simulate(speeds=[1, 1, -1, 1]), r"speeds\[2\] must be .*-1"),
    ("speed 0", lambda: simulate(speeds=0), "speeds must be a number above 0"),
    ("speed nan", lambda: simulate(speeds=NAN), "speeds must be .* nan"),
    ("speed inf", lambda: simulate(speeds=[1.0, INF, 1.0, 1.0]), r"speeds\[1\] must be .* inf"),
    ("too few speeds", lambda: simulate(speeds=[1.0]), "speeds must be one for each of 4 workers"),
    ("negative patience", lambda: simulate(patience=-1), "patience must be .* -1"),
    ("endless patience", lambda: simulate(patience=INF), "patience must be .* inf"),
    ("negative minimum", lambda: simulate(minimum=-1e-3), "minimum must be"),
    ("known 0", lambda: simulate(known=0.0), "known must be a number above 0"),
    ("known nan", lambda: simulate(known=NAN), "known must be"),
    ("gather from 0", lambda: simulate(relay_from=0), "relay_from must be"),
    ("no seed", lambda: simulate(seed="seed"), "seed must be"),
    ("no events", lambda: simulate().run(0), "most_events must be"),
    ("host 0", lambda: Network(host=0), "host must be a whole number of at least 1, not 0"),
    ("rack -3", lambda: Network(rack=-3), "rack must be"),
    ("near inf", lambda: Network(near=INF), "near must be"),
    ("near nan", lambda: Network(near=NAN), "near must be"),
    ("middle -1", lambda: Network(middle=-1.0), "middle must be"),
    ("far a string", lambda: Network(far="50us"), "far must be"),  # type: ignore[arg-type]
    ("negative bytes", lambda: Network(seconds_a_byte=-1), "seconds_a_byte must be"),
    ("negative cpu", lambda: Network(cpu=-1e-6), "cpu must be"),
    ("negative jitter", lambda: Network(jitter=-1e-6), "jitter must be"),
    ("negative sending", lambda: Network(message_send=-1e-6), "message_send must be"),
    ("receiving nan", lambda: Network(message_receive=NAN), "message_receive must be"),
    ("negative item", lambda: Network(item_send=-1e-6), "item_send must be"),
    ("loading a word", lambda: Network(item_receive="1us"), "item_receive must"),  # type: ignore[arg-type]
    ("endless result", lambda: Network(result_send=INF), "result_send must be"),
    ("result nan", lambda: Network(result_receive=NAN), "result_receive must be"),
    ("negative wake", lambda: Network(wake=-1.0), "wake must be"),
    ("negative spin", lambda: Network(spin=-1.0), "spin must be"),
    ("endless poll", lambda: Network(poll=INF), "poll must be"),
    ("no core", lambda: Network(cores=0), "cores must be a whole number of at least 1, not 0"),
    ("half a core", lambda: Network(cores=1.5), "cores must be"),  # type: ignore[arg-type]
    ("a word as network", lambda: simulate(network="fast"), "network must be a Network"),
    ("half asleep", lambda: simulate(sleeping=0.5), "sleeping must be True or False"),
    ("event 0", lambda: Death(0, 1), "event must be a whole number of at least 1, not 0"),
    ("rank -1", lambda: Death(30, -1), "rank must be"),
    ("noticed nan", lambda: Death(30, 1, NAN), "noticed must be"),
    ("suspicion of -1", lambda: Suspicion(30, -1), "rank must be"),
    ("endless freeze", lambda: Freeze(30, 1, INF), "seconds must be"),
    ("negative delay", lambda: Delay(-1.0), "seconds must be"),
    ("delay from -1", lambda: Delay(1.0, source=-1), "source must be"),
    ("delay until before", lambda: Delay(1.0, since=2.0, until=1.0), "until must be"),
    ("death of 99", lambda: simulate(faults=[Death(30, 99)]), "rank=99.*ranks go from 0 to 3"),
    ("suspicion of 99", lambda: simulate(faults=[Suspicion(30, 99)]), "from 0 to 3"),
    ("freeze of 4", lambda: simulate(faults=[Freeze(30, 4, 1.0)]), "from 0 to 3"),
    ("delay from 99", lambda: simulate(faults=[Delay(1.0, source=99)]), "from 0 to 3"),
    ("delay to 4", lambda: simulate(faults=[Delay(1.0, to=4)]), "from 0 to 3"),
    ("no fault", lambda: simulate(faults=["dies"]), "faults must be Death"),
    ("negative seconds", lambda: Script(-1.0), "step 0 of Script must be"),
    ("nan among tasks", lambda: Script(1.0, [1.0, NAN]), "task 1 of step 1 of Script must be"),
    ("a word as step", lambda: Script("abc"), "step 0 of Script must be seconds, a sequence"),
    ("a task as step", lambda: Script(Script(1.0)), "step 0 of Script must be"),
    ("a word as task", lambda: Script(["abc"]), "task 0 of step 0 of Script must be"),
    ("a list as task", lambda: Script([[1.0]]), "task 0 of step 0 of Script must be"),
    ("negative call", lambda: Script(Calls([-1.0])), "task 0 of step 0 of Script must be"),
    ("negative record", lambda: recorded([1.0, -1.0]), "task 1 of step 0 of Script must be"),
    ("flat -5", lambda: flat(-5, constant(1.0), 0), "count must be"),
    ("flat nan", lambda: flat(5, lambda _: NAN, 0), "task 0 of step 0"),
    ("mean -1", lambda: exponential(-1), "mean must be a number above 0, not -1"),
    ("constant inf", lambda: constant(INF), "seconds must be"),
    ("width -1", lambda: nested([2, -1], 1.0), "widths must be"),
    ("nested nan", lambda: nested([2], NAN), "duration must be"),
    ("branch -2", lambda: geometric(1, 3, -2, 1.0), "branch must be"),
    ("height -1", lambda: geometric(1, -1, 2, 1.0), "height must be"),
    ("chance 2", lambda: binomial(1, 2, 2, 2.0, 1.0), "chance must be .* at most 1"),
    ("no end", lambda: binomial(1, 2, 4, 0.5, 1.0), r"width \* chance must be below 1"),
    ("no tasks", lambda: random_tree(1, 0, 1.0), "tasks must be"),
    ("mean task 0", lambda: random_tree(1, 10, 0.0), "duration must be"),
    ("failing 2", lambda: random_tree(1, 10, 1.0, 2.0), "failing must be"),
    ("greedy and nobody", lambda: greedy_makespan([1.0], []), "speeds must be"),
    ("greedy at -1", lambda: greedy_makespan([1.0], [-1.0]), r"speeds\[0\] must be"),
]


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_cannot_be_is_refused_where_it_is_given(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_whole_numbers_of_seconds_are_seconds() -> None:
    for program in (
        Script([1, 2]),
        Script(1),
        nested([2, 2], 1),
        recorded([1, 2]),
        Script([2, 1.0]),
    ):
        seconds = measure(program)[1]
        assert Simulation(2, program).run().work == pytest.approx(seconds)
    assert Simulation(2, PROGRAM, speeds=2, patience=0, known=1, minimum=0).run().executed == 4


class Odd(Inner):
    """A task whose steps are made while it runs."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def steps(self) -> Any:
        yield self.step

    def __repr__(self) -> str:
        return "Odd"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("word", "step 0 of Odd"),
        (-1.0, "step 0"),
        ([1.0, NAN], "task 1 of step 0 of Odd"),
    ],
)
def test_a_step_that_is_none_is_named_when_the_task_yields_it(step: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Simulation(1, Script([Odd(step)])).run()


def test_whole_seconds_may_be_yielded() -> None:
    assert Simulation(1, Script([Odd(2), Odd([1, 2])])).run().work == 5.0


def test_a_simulation_runs_once() -> None:
    simulation = simulate()
    simulation.run()
    with pytest.raises(RuntimeError, match="has run already"):
        simulation.run()


def test_faults_after_the_last_event_are_told() -> None:
    late = Freeze(10**9, 1, 1.0)
    report = simulate(faults=[Freeze(3, 1, 1e-4), late]).run()
    assert report.unstruck == (late,)
    assert "rank=1, seconds=1.0) did not strike" in str(report)
    assert simulate().run().unstruck == ()


def test_random_worlds_check_what_they_are_given() -> None:
    with pytest.raises(ValueError, match="workers must be"):
        random_simulation(1, workers=0)


def test_the_greedy_queue_gives_to_the_fastest_of_those_that_are_free() -> None:
    assert greedy_makespan([1.0], [0.1, 1.0]) == greedy_makespan([1.0], [1.0, 0.1]) == 1.0
