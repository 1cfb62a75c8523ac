"""In an allocation: its hosts are used, and its own command starts agents where there is no ssh."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import launch
from tests.hosts import Hosts
from tests.launch import PROGRAMS

PLACE = PROGRAMS / "place.py"
LIMIT = 60.0

# Each does with its words what the real one would: options apart, what follows is run.
_SRUN = """#!/bin/sh
echo "$@" >> LOG
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
_PBSDSH = """#!/bin/sh
echo "$@" >> LOG
while [ "$1" != "-h" ]; do shift; done
shift 2
exec sh -c "$*" < /dev/null > /dev/null
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Make a directory of commands without ssh among them."""
    there = tmp_path / "bin"
    there.mkdir()
    for name in ("sh", "env", "cat"):
        (there / name).symlink_to(str(shutil.which(name)))
    for name, text in (("srun", _SRUN), ("pbsdsh", _PBSDSH)):
        (there / name).write_text(text.replace("LOG", f"'{tmp_path}/log'"))
        (there / name).chmod(0o755)
    return there


def run(tmp_path: Path, *options: str, env: dict[str, str]) -> launch.Completed:
    command = [sys.executable, "-m", "dtm", "--tag-output", *options, str(PLACE), "a b"]
    return launch.run(command, launch.environment(env), LIMIT, cwd=tmp_path)


def tags(done: launch.Completed) -> list[str]:
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert json.loads(line.partition(" ")[2])["arguments"] == ["a b"]
    return sorted(line.partition(" ")[0] for line in done.stdout.splitlines())


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "node[01-03]",
    "SLURM_TASKS_PER_NODE": "2,1(x2)",
}
ALL = ["[0@node01]", "[1@node01]", "[2@node02]", "[3@node03]"]


def test_the_hosts_of_an_allocation_are_used_with_ssh_where_there_is_one(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, "unused")
    done = run(tmp_path, "--ssh", f"'{hosts.stand_in}'", env=SLURM)
    assert tags(done) == ALL
    assert "-- node02 " in hosts.log.read_text()


def test_without_ssh_srun_starts_the_agents(tmp_path: Path, tools: Path) -> None:
    done = run(tmp_path, env=SLURM | {"PATH": str(tools)})
    assert tags(done) == ALL
    assert "--nodelist=node02" in (tmp_path / "log").read_text()


def test_what_passes_no_input_on_is_spoken_to_by_files(tmp_path: Path, tools: Path) -> None:
    (tmp_path / "nodes").write_text("n1\nn1\nn2\n")
    env = {"PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_NP": "3", "PATH": str(tools)}
    done = run(tmp_path, env=env)
    assert tags(done) == ["[0@n1]", "[1@n1]", "[2@n2]"]
    assert "-h n2" in (tmp_path / "log").read_text()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".dtm-")]


def test_a_starter_that_fails_is_named_with_its_host(tmp_path: Path, tools: Path) -> None:
    for name in ("srun", "pbsdsh"):
        (tools / name).write_text("#!/bin/sh\necho 'no such step' >&2\nexit 1\n")
    (tmp_path / "nodes").write_text("n1\nn2\n")
    pbs = {"PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_NP": "2"}
    for env, host in ((SLURM, "node01"), (pbs, "n1")):
        done = run(tmp_path, env=env | {"PATH": str(tools)})
        assert done.returncode == 1
        assert f"dtm: {host}: no agent of dtm answered: no such step" in done.stderr


def test_an_allocation_of_this_host_alone_is_a_local_run(tmp_path: Path) -> None:
    env = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": os.uname().nodename,
        "SLURM_TASKS_PER_NODE": "2",
    }
    command = [sys.executable, "-m", "dtm", "--dry-run", str(PLACE)]
    done = launch.run(command, launch.environment(env), LIMIT, cwd=tmp_path)
    assert done.stdout.startswith("this machine: ranks 0 to"), done.stderr


def test_a_rank_of_an_mpi_run_starts_nobody(tmp_path: Path) -> None:
    env = SLURM | {"PMIX_RANK": "0"}
    command = [sys.executable, "-m", "dtm", "--dry-run", str(PLACE)]
    done = launch.run(command, launch.environment(env), LIMIT, cwd=tmp_path)
    assert "a rank of an MPI run" in done.stdout
