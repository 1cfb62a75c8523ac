"""The conformance suite finds managers that break their promises, and MPI keeps them all."""

from __future__ import annotations

import pickle
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock, Thread

import pytest

from dtm.comm.base import CommunicationManager, Frame
from dtm.testing import conformance
from dtm.testing.conformance import Scenario, Verdict, check_communication_manager
from dtm.testing.network import SimulatedManager, Switch
from tests.test_comm_mpi import _bounded, _environment

RANK = Path(__file__).with_name("mpi_rank.py")
MPIRUN = Path(sys.executable).with_name("mpirun")


def mpi_factory(folder: Path) -> conformance.Factory:
    def factory(scenario: Scenario, size: int) -> None:
        report = folder / "report"
        report.write_text("", encoding="utf-8")
        command = [str(MPIRUN), "--oversubscribe", "-n", str(size), sys.executable, str(RANK)]
        status, output = _bounded(
            [*command, pickle.dumps(scenario).hex(), str(report)], _environment()
        )
        said = report.read_text(encoding="utf-8")
        assert (status, said.splitlines()) == (0, ["kept"] * size), f"{said}\n{output}"

    return factory


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_mpi_keeps_every_promise(tmp_path: Path) -> None:
    if not MPIRUN.exists():
        warnings.warn(f"MPI is NOT tested: there is no {MPIRUN}", stacklevel=1)
        pytest.skip(f"there is no {MPIRUN}")
    verdict = check_communication_manager(mpi_factory(tmp_path))
    assert len(verdict.kept) == 12
    assert "vanish" in verdict.not_tried[0]


# Managers that break a promise


class NeverSleeps(SimulatedManager):
    def wait(self, timeout: float) -> None:
        pass


class SleepsBriefly(SimulatedManager):
    def wait(self, timeout: float) -> None:
        super().wait(min(timeout, 0.5e-3))


class NeverSleepsAgain(SimulatedManager):
    roused = False

    def wait(self, timeout: float) -> None:
        super().wait(0.0 if self.roused else timeout)

    def wake(self) -> None:
        super().wake()
        self.roused = True


class DropsWhatIsForNobody(SimulatedManager):
    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        if 0 <= rank < self.size:
            super().send(rank, frames)


class WakesUnderALock(SimulatedManager):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.lock = Lock()

    def wake(self) -> None:
        with self.lock:
            super().wake()


class SwapsMessages(SimulatedManager):
    def receive(self) -> list[tuple[int, list[Frame]]]:
        return super().receive()[::-1]


class DropsEmptyFrames(SimulatedManager):
    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        super().send(rank, [frame for frame in frames if memoryview(frame).nbytes])


class ForgetsWakes(SimulatedManager):
    def wake(self) -> None:
        if self._waiting:
            super().wake()


def broken_factory(kind: type[SimulatedManager]) -> conformance.Factory:
    def factory(scenario: Scenario, size: int) -> None:
        switch = Switch(size)
        switch.managers = [kind(switch, rank, size) for rank in range(size)]
        failures: list[BaseException] = []

        def play(manager: CommunicationManager) -> None:
            try:
                scenario(manager)
            except BaseException as error:
                failures.append(error)

        threads = [Thread(target=play, args=(one,), daemon=True) for one in switch.managers]
        for thread in threads:
            thread.start()
        while not failures and any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
        if failures:
            raise failures[0]

    return factory


BROKEN = [
    (NeverSleeps, r"``wait`` sleeps .*owed.*before half of it|and no more .*owed.*before half"),
    (SleepsBriefly, "20 waits for 0.05 s return before half of it"),
    (NeverSleepsAgain, "and no more .*after a wake .* return before half of it"),
    (DropsWhatIsForNobody, "nobody sends .*may send to rank -1: no ValueError"),
    (WakesUnderALock, "in a signal handler .*owed.*stands still"),
    (SwapsMessages, "Messages of each pair arrive in the order .*owed by every manager"),
    (DropsEmptyFrames, "owed by every manager.*ValueError"),
    (ForgetsWakes, "or else the next one.*a wake before the wait was forgotten"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "message"), BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_a_manager_that_breaks_a_promise_is_told_which(
    kind: type[SimulatedManager], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "_PATIENCE", 3.0)
    monkeypatch.setattr(conformance, "_SOON", 1.0)
    with pytest.raises(AssertionError, match=message):
        check_communication_manager(broken_factory(kind), large=100_000)


def test_a_wait_that_comes_back_now_and_then_is_allowed() -> None:
    class Nervous(SimulatedManager):
        calls = 0

        def wait(self, timeout: float) -> None:
            self.calls += 1
            super().wait(timeout if self.calls % 5 else 0.0)

    broken_factory(Nervous)(conformance.is_quiet_when_idle, 2)


def test_the_verdict_says_what_was_not_tried() -> None:
    verdict = Verdict(("keeps_order",), ("reports_a_loss, for the factory has no `vanish`",))
    assert "not tried: reports_a_loss" in str(verdict)
