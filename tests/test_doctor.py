"""``dtm doctor`` as people run it: on a machine, on hosts, under MPI."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests import mpich
from tests.hosts import Hosts
from tests.launch import Completed, environment, find_mpirun, mpi_prefix, run, started

LIMIT = 100.0
without_mpi = pytest.mark.skipif(find_mpirun() is None, reason="there is no mpirun")


def doctor(
    *arguments: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> Completed:
    command = [*prefix, sys.executable, "-m", "dtm", "doctor", *arguments]
    return run(command, environment(env), LIMIT)


def findings(done: Completed, status: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return what was found, by what it is about; the status is that expected."""
    assert done.returncode == status, done.stdout + done.stderr
    known = json.loads(done.stdout)
    assert known["works"] == (status == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for each in known["findings"]:
        found.setdefault(each["about"], []).append(each)
    return found


def test_a_machine_is_examined() -> None:
    found = findings(doctor("-n", "2", "--json"))
    assert set(found) >= {"software", "cores", "threads of libraries", "space", "MPI", "exchange"}
    (link,) = found["exchange"]
    assert 0 < link["figures"]["round_trip"] < 1
    assert link["figures"]["bandwidth"] > 1e6
    assert found["threads of libraries"][0]["figures"]["threads"] == 1


def test_people_read_it_in_plain_words() -> None:
    done = doctor("-n", "1")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "dtm doctor: 1 worker on this machine"
    assert lines[-1].endswith("a run would work")
    assert any(line.startswith("ok        software: Python 3") for line in lines)


@pytest.mark.slow
def test_variables_say_what_options_do_not() -> None:
    env = {"DTM_WORKERS": "1", "DTM_COMM": "multiprocessing", "PMI_SIZE": "4"}
    assert doctor(env=env).stdout.startswith("dtm doctor: 1 worker on this machine\n")
    assert doctor("-n", "3", env=env).stdout.startswith("dtm doctor: 3 workers on this machine\n")


def test_a_missing_mpi_fails_only_those_who_want_it(tmp_path: Path) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('no libmpi.so')")
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    assert findings(doctor("--json", env=path))["MPI"][0]["level"] == "warning"
    assert findings(doctor("--json", "--comm", "mpi", env=path), 1)["MPI"][0]["level"] == "problem"


def test_hosts_are_entered_and_a_run_on_them_is_tried(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha slots=2", "localhost")
    ssh = f"'{hosts.stand_in}'"
    found = findings(doctor("--hosts", str(hosts.file), "--ssh", ssh, "--json"))
    assert [each["host"] for each in found["entry"]] == ["alpha", "localhost"]
    assert [each["host"] for each in found["clock"]] == ["alpha", "localhost"]
    assert [each["level"] for each in found["exchange"]] == ["ok", "ok"]
    assert "by tcp" in found["exchange"][0]["found"]


def test_a_host_that_is_down_is_a_problem_and_no_run_is_tried(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "alpha", "down1", "down2")
    found = findings(
        doctor("--hosts", str(hosts.file), "--ssh", f"'{hosts.stand_in}'", "--json"), 1
    )
    levels = {each["host"]: each["level"] for each in found["entry"]}
    assert levels == {"alpha": "ok", "down1": "problem", "down2": "problem"}
    assert "exchange" not in found
    assert hosts.log.read_text().count(" -- ") == 3


def test_a_host_that_hangs_is_given_up(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "hanging1")
    options = ("--hosts", str(hosts.file), "--ssh", f"'{hosts.stand_in}'")
    found = findings(doctor(*options, "--connect-timeout", "1", "--json"), 1)
    assert "in time" in found["entry"][0]["found"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_doctor_that_is_ended_leaves_nothing(tmp_path: Path, number: int) -> None:
    hosts = Hosts(tmp_path, "hanging1")
    options = ("--hosts", str(hosts.file), "--ssh", f"'{hosts.stand_in}'", "--connect-timeout", "5")
    command = [sys.executable, "-m", "dtm", "doctor", *options]
    with started(command, environment()) as program:
        deadline = monotonic() + LIMIT
        while not hosts.log.exists():  # written by what stands for ssh
            assert monotonic() < deadline
            sleep(0.01)
        program.process.send_signal(number)
        assert program.wait() == 128 + number
        assert "Traceback" not in program.stderr


def test_the_hosts_of_an_allocation_are_examined(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "unused")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]x", "SLURM_TASKS_PER_NODE": "1(x2)"}
    done = doctor("--ssh", f"'{hosts.stand_in}'", env=slurm)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("dtm doctor: 2 workers on n[1-2]x, granted by slurm\n")


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("--hosts", "/no/such/file"), {}, "the file of hosts /no/such/file cannot be read"),
        ((), {"SLURM_JOB_ID": "7"}, "SLURM_JOB_NODELIST"),
        (("--comm", "mpi", "--hosts", "x"), {}, "--hosts needs the communication manager tcp"),
        (("--ssh", "'"), {}, "--ssh"),
        ((), {"DTM_CONNECT_TIMEOUT": "soon"}, "DTM_CONNECT_TIMEOUT"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(
    arguments: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    done = doctor(*arguments, env=env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("dtm: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    "arguments", [("-n", "0"), ("--comm", "smoke"), ("--connect-timeout", "-1"), ("extra",)]
)
def test_wrong_options_are_refused(arguments: tuple[str, ...]) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2
    assert "usage: dtm doctor" in done.stderr


@without_mpi
def test_the_ranks_of_an_mpi_run_are_examined() -> None:
    found = findings(doctor("--json", prefix=tuple(mpi_prefix(3))))
    assert found["ranks"][0]["found"] == "3 of 3 see each other"
    assert "by mpi" in found["exchange"][0]["found"]
    assert found["cores"][0]["figures"]["workers"] == 3
    assert re.search("thread level [A-Z]+; the launcher is one", found["MPI"][0]["found"])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_do_not_see_each_other_are_a_problem(rank: int) -> None:
    pytest.importorskip("mpi4py")
    if find_mpirun() is None:
        pytest.skip("there is no MPI library")
    # What the mpiexec of another library leaves in the environment of each rank.
    foreign = {"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": str(rank)}
    done = doctor("--json", env=foreign)
    if rank:  # a launcher would end the job, and the report with it, at a status that is not 0
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    else:
        assert "started 2 processes" in findings(done, 1)["ranks"][0]["found"]


@without_mpi
def test_a_library_that_ends_under_a_foreign_launcher_is_reported_once() -> None:
    prefix = tuple(mpi_prefix(2))
    if "--oversubscribe" not in prefix:
        pytest.skip("mpirun is not Open MPI's")
    command = [*prefix, str(mpich.python()), "-m", "dtm", "doctor"]
    done = run(command, environment(), LIMIT)
    assert done.returncode != 0
    text = " ".join(done.stdout.split())
    assert text.count("mpi4py uses MPICH, and the launcher seems to be of Open MPI") == 1
    assert text.endswith("a run would not work")


IN_A_TASK = """
import subprocess, sys
from dtm import dtm

def examine(words):
    command = [sys.executable, "-m", "dtm", "doctor", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80)
    return done.returncode, done.stdout

def main():
    calls = [dtm.apply_async(examine, ["-n", str(number)]) for number in (1, 2)]
    for status, report in [examine(["-n", "2"]), *(call.get() for call in calls)]:
        assert status == 0, report
        print(" ".join(report.split()), flush=True)

dtm.start(main)
"""


@without_mpi
def test_a_task_of_an_mpi_run_may_ask_whether_another_run_would_work(tmp_path: Path) -> None:
    program = tmp_path / "asks.py"
    program.write_text(IN_A_TASK)
    done = run([*mpi_prefix(2), sys.executable, str(program)], environment(), LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["way"], each["workers"]) for each in reports] == [
        ("local", 2),
        ("local", 1),
        ("local", 2),
    ]
    assert all("exchange" in {each["about"] for each in one["findings"]} for one in reports)


LAUNCHERS = {
    "Open MPI": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "RANK", "PMIX_RANK": "RANK"},
    "MPICH": {"PMI_SIZE": "2", "PMI_RANK": "RANK"},
    "MVAPICH": {"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "RANK"},
    "srun": {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "PMIX_RANK": "RANK"},
    "jsrun": {"JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "RANK"},
}
# Instead of the real package: no processor time is given to other threads while it hangs.
HANGS = "import ctypes; ctypes.PyDLL(None).sleep(1000)"
ENDS = "import os, sys; print('no such fabric', file=sys.stderr, flush=True); os._exit(14)"
IMPATIENT = (
    "import sys; from dtm.commands import execute; from dtm.doctor import examination; "
    "examination.MPI_SECONDS = {seconds}; sys.exit(execute(['doctor', '--json']))"
)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize(
    ("launcher", "library", "seconds", "said"),
    [
        pytest.param("Open MPI", HANGS, 1.0, "took more than 1 s", id="it hangs"),
        *(
            pytest.param(each, ENDS, 60.0, "status 14: no such fabric", id=f"it ends under {each}")
            for each in LAUNCHERS
        ),
    ],
)
def test_whatever_an_mpi_library_does_one_rank_reports_it_in_time(
    launcher: str, rank: str, library: str, seconds: float, said: str, tmp_path: Path
) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text(library)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    marks = {name: text.replace("RANK", rank) for name, text in LAUNCHERS[launcher].items()}
    command = [sys.executable, "-c", IMPATIENT.format(seconds=seconds)]
    done = run(command, environment(marks | path), LIMIT)
    if rank == "0":
        assert said in findings(done, 1)["MPI"][0]["found"]
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


ONE_RANK_HANGS = """
import os, sys, time
if os.environ.get("OMPI_COMM_WORLD_RANK") == "1" and "dtm.doctor.exchange" in sys.orig_argv:
    time.sleep(1000)
"""


@without_mpi
def test_ranks_do_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    prefix = tuple(mpi_prefix(2))
    if "--oversubscribe" not in prefix:
        pytest.skip("mpirun is not Open MPI's")
    (tmp_path / "sitecustomize.py").write_text(ONE_RANK_HANGS)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    command = [*prefix, sys.executable, "-c", IMPATIENT.format(seconds=5.0)]
    found = findings(run(command, environment(path), LIMIT), 1)
    assert "took more than 5 s" in found["MPI"][0]["found"]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_processes_that_would_be_runs_of_their_own_one_reports(rank: str) -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": rank}
    done = doctor("--comm", "local", "-n", "1", "--json", env=step)
    if rank == "0":
        (found,) = findings(done)["ranks"]
        assert found["level"] == "warning"
        assert "has started 2 processes, and each would be a run of its own" in found["found"]
    else:
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "dtm: process 1 of 2 leaves the report to process 0\n"


def test_help_names_every_option() -> None:
    done = doctor("--help")
    assert done.returncode == 0
    for option in ("--hosts", "--workers", "--comm", "--ssh", "--connect-timeout", "--json"):
        assert option in done.stdout
