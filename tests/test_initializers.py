"""Each worker is prepared before its first task, or the run says on which it was not."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from dtm import OptionError, RunStateError, dtm
from dtm.options import Options
from dtm.run.local import Local
from tests import checks
from tests.launch import PROGRAMS, Completed, Launcher, environment, launchers, run

PROGRAM = PROGRAMS / "initializers.py"
BROKEN = PROGRAMS / "broken_initializers.py"
PLACES = checks.places(PROGRAM, "local-2", "local-1", "mpi-2")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_in_a_run(check: str, place: str) -> None:
    checks.assert_kept(PROGRAM, place, check)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_ends_well(place: str) -> None:
    checks.assert_ended_well(PROGRAM, place)


@pytest.fixture(params=launchers("local-2", "mpi-2"))
def launcher(request: pytest.FixtureRequest) -> Launcher:
    made: Launcher = request.param
    return made


def ended(launcher: Launcher, *arguments: object) -> Completed:
    return launcher.run(BROKEN, *arguments, timeout=60)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_ends_the_run_and_says_where(launcher: Launcher, rank: int) -> None:
    done = ended(launcher, "fails", rank)
    where = f"InitializerError the initializer prepare has failed on worker {rank} ("
    assert where in done.stdout, done.stderr + done.stdout
    assert "OSError: no such device" in done.stdout
    assert 'raise OSError("no such device")' in done.stderr, "the traceback of that worker"


def test_failures_everywhere_are_one(launcher: Launcher) -> None:
    done = ended(launcher, "fails", 0, 1)
    assert done.stdout.count("InitializerError") == 1, done.stderr


def test_to_call_dtm_in_it_is_refused(launcher: Launcher) -> None:
    done = ended(launcher, "asks", 1)
    assert "cannot call functions of dtm" in done.stdout, done.stderr + done.stdout


def test_nobody_waits_for_one_that_hangs(launcher: Launcher) -> None:
    done = ended(launcher, "hangs", 1)
    assert done.stdout.split() == ["sum", "44850"], done.stderr


def outside(program: str) -> Completed:
    return run([sys.executable, "-c", program], environment(), 60)


def test_outside_of_a_run_it_is_called_when_dtm_is_first_needed() -> None:
    done = outside(
        "from dtm import dtm\n"
        "dtm.setOptions(initializer=print, initargs=('prepared',))\n"
        "dtm.local.kept = 7\n"
        "print('before')\n"
        "print(dtm.map(abs, [-1]), dtm.map(abs, [-2]), dtm.local.kept)\n"
    )
    assert done.stdout.split("\n")[:3] == ["before", "prepared", "[1] [2] 7"], done.stderr


def test_outside_of_a_run_its_failure_is_raised_where_it_was_needed() -> None:
    done = outside(
        "from dtm import dtm\n"
        "dtm.setOptions(initializer=lambda: dtm.map(abs, [1]))\n"
        "for _ in range(2):\n"
        "    try: dtm.map(abs, [-1])\n"
        "    except Exception as error: print(type(error).__name__)\n"
    )
    assert done.stdout.split() == ["InitializerError"] * 2, done.stderr


def test_a_forked_child_is_prepared_already() -> None:
    done = outside(
        "import os\nfrom dtm import dtm\n"
        "dtm.setOptions(initializer=lambda: os.write(1, b'prepared\\n'))\n"
        "dtm.map(abs, [-1])\n"
        "if os.fork() == 0:\n"
        "    os.write(1, b'%d\\n' % dtm.apply(abs, -3)); os._exit(0)\n"
        "os.wait()\n"
    )
    assert done.stdout.split() == ["prepared", "3"], done.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"initializer": 3},
        {"initializer": print, "initargs": "text"},
        {"initializer": print, "initargs": 3},
    ],
)
def test_an_impossible_one_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"initializer|initargs"):
        dtm.options(**given)
    with pytest.raises(OptionError, match=r"initializer|initargs"):
        Options().update(given)


def test_arguments_alone_are_refused() -> None:
    with pytest.raises(OptionError, match="no initializer"):
        dtm.options(initargs=(1,))


def test_what_is_made_at_once_by_two_threads_is_made_once() -> None:
    space = Local()
    entered, go_on = threading.Event(), threading.Event()
    made: list[object] = []

    def make() -> object:
        entered.set()
        assert go_on.wait(30)
        made.append(object())
        return made[-1]

    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(space.get("it", make))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1
    assert found == made * 4


def test_what_fails_to_be_made_is_tried_again() -> None:
    space = Local()
    with pytest.raises(ZeroDivisionError):
        space.get("ratio", lambda: 1 / 0)
    assert space.get("ratio", lambda: 2.0) == 2.0
    with pytest.raises(RunStateError, match="what is to make it"):
        space.get("own", lambda: space.get("own", int))
