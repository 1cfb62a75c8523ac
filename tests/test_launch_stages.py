"""How far a launch has come decides what a message means."""

from __future__ import annotations

import asyncio

import pytest

from dtm.launch.hosts import Host
from dtm.launch.launcher import Launcher, Stage
from dtm.launch.messages import Ended, Go, Gone, Message, Over, Ready, Refused
from dtm.launch.plan import Run, Site, Starting
from dtm.options import Settings

HOSTS = ("one", "two")


class Told:
    """Stands for the workers and agents; keeps what they are told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def take(self, message: Message) -> None:
        self.messages.append(message)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> tuple[Launcher, Told]:
    sites = [Site(Host(name), rank) for rank, name in enumerate(HOSTS)]
    launcher = Launcher(Run(sites, [], "/", [], Starting("python3"), Settings(tls=False)))
    told = Told()
    monkeypatch.setattr(launcher, "_node", told)
    return launcher, told


def take(launcher: Launcher, *messages: Message) -> None:
    async def act() -> None:
        for message in messages:
            launcher._take(message)

    asyncio.run(act())


READY = [Ready(name, "10.0.0.1", "10.0.0.2") for name in HOSTS]


def test_workers_are_started_when_every_host_is_ready(launched: tuple[Launcher, Told]) -> None:
    launcher, told = launched
    take(launcher, READY[0])
    assert not told.messages
    take(launcher, READY[1])
    assert launcher.stage is Stage.RUNNING
    assert [type(message) for message in told.messages] == [Go]


def test_the_run_is_over_when_the_root_and_then_all_have_ended(
    launched: tuple[Launcher, Told],
) -> None:
    launcher, told = launched
    take(launcher, *READY, Ended(0, 3))
    assert launcher.stage is Stage.PARTING
    assert isinstance(told.messages[-1], Over)
    take(launcher, Ended(1, 0))
    assert launcher.stage is Stage.OVER
    assert launcher._status == 3


@pytest.mark.parametrize("bad", [Refused("one", "no"), Gone(["one"], [0], "it is down")])
def test_a_host_that_drops_out_before_all_are_ready_ends_the_launch(
    launched: tuple[Launcher, Told], bad: Message, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher, told = launched
    take(launcher, READY[0], bad)
    assert launcher.stage is Stage.CALLING, "the other host may have something to say too"
    take(launcher, READY[1])
    assert not told.messages, "a run that is given up starts no worker"
    assert launcher.stage is Stage.OVER
    assert "nothing was started" in capsys.readouterr().err


def test_what_comes_when_all_is_over_changes_nothing(launched: tuple[Launcher, Told]) -> None:
    launcher, told = launched
    take(launcher, READY[0])
    launcher._finish(130)
    take(launcher, READY[1], Ended(0, -9), Gone(["two"], [1], "it is down"))
    assert launcher.stage is Stage.OVER
    assert launcher._status == 130
    assert not told.messages


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([Ended(1, 5), Ended(0, 0)], {1: "worker 1, on two, exited with status 5"}),
        ([Ended(0, 0), Ended(1, 5)], {1: "worker 1, on two, exited with status 5"}),
        ([Ended(0, 0), Ended(1, -11)], {1: "worker 1, on two, killed by SIGSEGV"}),
        ([Gone(["two"], [1], "two is cut off"), Ended(0, 0)], {1: "two is cut off"}),
        ([Ended(1, 0), Ended(0, 0)], {}),
        ([Ended(0, 0), Ended(1, -15)], {}),  # it was told to end
        ([Ended(0, 7)], {}),
    ],
)
def test_who_fails_is_remembered_for_a_run_whose_root_ends_well(
    launched: tuple[Launcher, Told], messages: list[Message], said: dict[int, str]
) -> None:
    launcher, _ = launched
    take(launcher, *READY, *messages)
    assert launcher._failed == said
