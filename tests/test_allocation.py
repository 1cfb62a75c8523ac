"""What batch systems have granted, read from the environments that they document."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtm.errors import OptionError
from dtm.launch.allocation import Allocation, allocation
from dtm.launch.hosts import Host, compress


def never(command: tuple[str, ...]) -> str:
    raise AssertionError(f"{command} was run")


def read(environ: dict[str, str]) -> Allocation:
    found = allocation(environ, never)
    assert found is not None
    return found


def listed(text: str) -> tuple[Host, ...]:
    """Make hosts of a text such as ``n1:4 n2``."""
    pairs = (word.partition(":") for word in text.split())
    return tuple(Host(name, int(slots or 1)) for name, _, slots in pairs)


def test_there_is_none_in_a_usual_environment() -> None:
    assert allocation({"HOME": "/root", "HOSTNAME": "n1"}, never) is None


def test_an_empty_variable_is_none() -> None:
    assert allocation({"PBS_NODEFILE": "", "SLURM_JOB_ID": "", "FLUX_URI": ""}, never) is None


# Slurm.

SLURM = {
    "SLURM_JOB_ID": "200505",
    "SLURM_JOBID": "200505",
    "SLURM_JOB_NODELIST": "n[01-03,7],gpu[1-2]-ib0",
    "SLURM_NODELIST": "n[01-03,7],gpu[1-2]-ib0",
    "SLURM_JOB_NUM_NODES": "6",
    "SLURM_TASKS_PER_NODE": "4(x3),3,2(x2)",
    "SLURM_JOB_CPUS_PER_NODE": "8(x6)",
    "SLURM_CPUS_ON_NODE": "8",
}


def test_slurm_grants_tasks_on_nodes() -> None:
    found = read(SLURM)
    assert found.system == "slurm"
    assert found.hosts == listed("n01:4 n02:4 n03:4 n7:3 gpu1-ib0:2 gpu2-ib0:2")


def test_slurm_starts_by_srun_on_the_node() -> None:
    found = read(SLURM)
    words = found.starter(found.hosts[4])
    assert words is not None
    assert words[0] == "srun"
    assert {"--nodes=1", "--ntasks=1", "--nodelist=gpu1-ib0", "--mpi=none"} <= set(words)
    assert found.passes_input


@pytest.mark.parametrize(
    ("changed", "slots"),
    [
        ({"SLURM_TASKS_PER_NODE": "1(x2)"}, [1, 1]),
        ({"SLURM_TASKS_PER_NODE": "5,3"}, [5, 3]),
        ({"SLURM_JOB_CPUS_PER_NODE": "16,8"}, [16, 8]),
        ({"SLURM_JOB_CPUS_PER_NODE": "16(x2)", "SLURM_CPUS_PER_TASK": "4"}, [4, 4]),
        ({"SLURM_JOB_CPUS_PER_NODE": "2(x2)", "SLURM_CPUS_PER_TASK": "4"}, [1, 1]),
        # Inside of a step of one task: the job's cores count.
        (
            {
                "SLURM_TASKS_PER_NODE": "1",
                "SLURM_STEP_TASKS_PER_NODE": "1",
                "SLURM_JOB_CPUS_PER_NODE": "8(x2)",
            },
            [8, 8],
        ),
        ({"SLURM_TASKS_PER_NODE": "3(x2)", "SLURM_STEP_TASKS_PER_NODE": "3(x2)"}, [3, 3]),
    ],
)
def test_slurm_slots_come_from_what_is_there(changed: dict[str, str], slots: list[int]) -> None:
    found = read({"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n[1-2]", **changed})
    assert [host.slots for host in found.hosts] == slots


@pytest.mark.parametrize(
    ("said", "slots"),
    [
        ({}, 1),
        ({"SLURM_CPUS_PER_TASK": "8"}, 8),
        ({"SLURM_JOB_CPUS_PER_NODE": "64"}, 64),
        ({"SLURM_JOB_CPUS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "8"}, 8),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_STEP_TASKS_PER_NODE": "1"}, 6),
    ],
)
def test_one_process_of_slurm_has_the_cores_of_its_job(said: dict[str, str], slots: int) -> None:
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1"}
    assert read({**job, **said}).hosts == listed(f"n1:{slots}")


def test_slurm_on_one_node_may_say_its_cores_alone() -> None:
    found = read({"SLURM_NODELIST": "n1", "SLURM_CPUS_ON_NODE": "12"})
    assert found.hosts == listed("n1:12")


# PBS, Torque, OAR: a file with a line a slot.


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    path = tmp_path / "nodes"
    path.write_text("n1\nn1\nn2\n\nn1\nn2\n", encoding="utf-8")
    return str(path)


def test_pbs_has_a_line_a_slot(nodes: str) -> None:
    found = read({"PBS_NODEFILE": nodes, "PBS_JOBID": "7.server", "NCPUS": "3"})
    assert found == Allocation("pbs", listed("n1:3 n2:2"), ("pbs_tmrsh", "{host}"), False)
    assert found.starter(found.hosts[1]) == ("pbs_tmrsh", "n2")


def test_one_process_of_pbs_has_the_cores_of_its_job(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("n1\n", encoding="utf-8")
    found = read({"PBS_NODEFILE": str(tmp_path / "nodes"), "NCPUS": "8"})
    assert found.hosts == listed("n1:8")


def test_torque_starts_by_pbsdsh(nodes: str) -> None:
    found = read({"PBS_NODEFILE": nodes, "PBS_NUM_NODES": "2", "PBS_NUM_PPN": "3"})
    assert found.hosts == listed("n1:3 n2:2")
    assert found.starter(found.hosts[0]) == ("pbsdsh", "-o", "-h", "n1")
    assert not found.passes_input


def test_torque_with_a_line_a_node_has_ppn_slots_each(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("n1\nn2\n", encoding="utf-8")
    found = read({"PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_NUM_PPN": "8"})
    assert found.hosts == listed("n1:8 n2:8")


@pytest.mark.parametrize("variable", ["OAR_NODEFILE", "OAR_NODE_FILE", "OAR_FILE_NODES"])
def test_oar_has_a_line_a_core(variable: str, nodes: str) -> None:
    found = read({variable: nodes, "OAR_JOB_ID": "42"})
    assert found == Allocation("oar", listed("n1:3 n2:2"), ("oarsh", "{host}"))


# LSF.


def test_lsf_has_pairs() -> None:
    found = read({"LSB_JOBID": "9", "LSB_MCPU_HOSTS": "hostA 4 hostB 2 "})
    assert found == Allocation("lsf", listed("hostA:4 hostB:2"), ("blaunch", "-z", "{host}"))


def test_lsf_has_words() -> None:
    assert read({"LSB_HOSTS": "a a b a"}).hosts == listed("a:3 b:1")


def test_lsf_has_a_file(nodes: str) -> None:
    assert read({"LSB_DJOB_HOSTFILE": nodes}).hosts == listed("n1:3 n2:2")


def test_lsf_says_the_same_in_all_its_ways(nodes: str) -> None:
    found = read(
        {"LSB_MCPU_HOSTS": "n2 2 n1 3", "LSB_HOSTS": "n1 n1 n1 n2 n2", "LSB_DJOB_HOSTFILE": nodes}
    )
    assert found.hosts == listed("n2:2 n1:3")


# Grid Engine.


def test_grid_engine_has_a_line_a_host_and_queue(tmp_path: Path) -> None:
    (tmp_path / "pe").write_text(
        "n1.local 8 all.q@n1.local UNDEFINED\n"
        "n2.local 4 all.q@n2.local 0,0:0,1\n"
        "n1.local 2 short.q@n1.local <NULL>\n",
        encoding="utf-8",
    )
    found = read({"PE_HOSTFILE": str(tmp_path / "pe"), "NSLOTS": "14", "SGE_ROOT": "/opt/sge"})
    assert found.hosts == listed("n1.local:10 n2.local:4")
    assert found.starter(found.hosts[1]) == ("qrsh", "-inherit", "n2.local")


def test_grid_engine_without_a_parallel_environment_is_this_host() -> None:
    found = read({"SGE_ROOT": "/opt/sge", "JOB_ID": "3", "NSLOTS": "1"})
    assert found == Allocation("sge", listed("localhost:1"), None)
    assert found.starter(found.hosts[0]) is None


def test_grid_engine_on_a_login_node_has_granted_nothing() -> None:
    assert allocation({"SGE_ROOT": "/opt/sge"}, never) is None


# Flux.

RESOURCES = {
    "version": 1,
    "execution": {
        "R_lite": [
            {"rank": "0-1", "children": {"core": "0-7", "gpu": "0"}},
            {"rank": "2", "children": {"core": "0,4-5"}},
        ],
        "nodelist": ["corona[101-102]", "corona7"],
        "starttime": 1.0,
        "expiration": 0.0,
    },
}


@pytest.mark.parametrize(
    ("environ", "asked", "start"),
    [
        (
            {"FLUX_URI": "local:///run/flux/local"},
            ("flux", "resource", "R"),
            ("flux", "exec", "--rank=2"),
        ),
        (
            {"FLUX_URI": "local:///run/flux/local", "FLUX_JOB_ID": "f3ETxsR9H"},
            ("flux", "job", "info", "f3ETxsR9H", "R"),
            ("flux", "exec", "--jobid=f3ETxsR9H", "--rank=2"),
        ),
    ],
)
def test_flux_is_asked(
    environ: dict[str, str], asked: tuple[str, ...], start: tuple[str, ...]
) -> None:
    commands = []

    def answer(command: tuple[str, ...]) -> str:
        commands.append(command)
        return json.dumps(RESOURCES)

    found = allocation(environ, answer)
    assert commands == [asked]
    assert found is not None
    assert found.hosts == listed("corona101:8 corona102:8 corona7:3")
    assert found.starter(found.hosts[2]) == start


def test_flux_inside_of_slurm_is_the_one_that_grants() -> None:
    found = allocation({**SLURM, "FLUX_URI": "local:///x"}, lambda _: json.dumps(RESOURCES))
    assert found is not None
    assert found.system == "flux"


def test_the_command_of_flux_is_really_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "flux"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(RESOURCES)}\nEND\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = allocation({"FLUX_URI": "local:///x"})
    assert found is not None
    assert len(found.hosts) == 3


def test_flux_without_its_command_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OptionError, match=r"FLUX_URI is set, but .*flux resource R.*No such file"):
        allocation({"FLUX_URI": "local:///x"})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "it is no JSON"),
        ("[]", "it is no resource set"),
        ('{"version": 2}', "its version is 2, not 1"),
        ('{"version": 1, "execution": {"nodelist": ["a"]}}', "it is no resource set"),
        (
            '{"version": 1, "execution": {"nodelist": ["a"], "R_lite": []}}',
            "it has 1 hosts and 0 ranks",
        ),
        (
            json.dumps(RESOURCES).replace("corona7", "a b"),
            "'a b' is no name of a host",
        ),
    ],
)
def test_an_answer_of_flux_that_makes_no_sense_is_refused(answer: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        allocation({"FLUX_URI": "x"}, lambda _: answer)
    assert said in str(caught.value)
    assert "--hosts" in str(caught.value)


# What makes no sense.


@pytest.mark.parametrize(
    ("environ", "variable", "said"),
    [
        ({"SLURM_JOB_ID": "1"}, "SLURM_JOB_NODELIST", "it is not set, and SLURM_JOB_ID is"),
        ({"SLURM_JOB_NODELIST": "n[1-"}, "SLURM_JOB_NODELIST", "no list of hosts"),
        ({"SLURM_JOB_NODELIST": "n1;x"}, "SLURM_JOB_NODELIST", "no name of a host"),
        ({"SLURM_NODELIST": "n[1-2]"}, "SLURM_TASKS_PER_NODE", "SLURM_NODELIST names 2 nodes"),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "4(x2)"}, "SLURM_TASKS_PER_NODE", "it is for 2 nodes"),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "4x6"}, "SLURM_TASKS_PER_NODE", "is no list such as"),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "0(x6)"}, "SLURM_TASKS_PER_NODE", "'0(x6)'"),
        (
            {"SLURM_NODELIST": "n1", "SLURM_CPUS_ON_NODE": "many"},
            "SLURM_CPUS_ON_NODE",
            "'many' is no whole number",
        ),
        ({"PBS_NODEFILE": "/no/such/file"}, "PBS_NODEFILE", "cannot be read"),
        ({"PBS_NODEFILE": "/dev/null"}, "PBS_NODEFILE", "it names no host"),
        ({"OAR_NODEFILE": "/no/such/file"}, "OAR_NODEFILE", "cannot be read"),
        ({"LSB_MCPU_HOSTS": "a 4 b"}, "LSB_MCPU_HOSTS", "not hosts with a number behind each"),
        ({"LSB_MCPU_HOSTS": "a b 4 2"}, "LSB_MCPU_HOSTS", "not hosts with a number"),
        (
            {"LSB_MCPU_HOSTS": "a 2", "LSB_HOSTS": "a a a"},
            "LSB_HOSTS",
            "other slots than LSB_MCPU_HOSTS",
        ),
        ({"PE_HOSTFILE": "/dev/null"}, "PE_HOSTFILE", "it names no host"),
        ({"SGE_ROOT": "/x", "JOB_ID": "1", "NSLOTS": "x"}, "NSLOTS", "no whole number"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(
    environ: dict[str, str], variable: str, said: str
) -> None:
    with pytest.raises(OptionError) as caught:
        allocation(environ, never)
    assert variable in str(caught.value)
    assert said in str(caught.value)
    assert "--hosts" in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [("n1 x q\n", "no number of slots"), ("n1\n", "n1")])
def test_a_line_of_grid_engine_without_slots_is_shown(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pe").write_text(text)
    with pytest.raises(OptionError, match=said):
        allocation({"PE_HOSTFILE": str(tmp_path / "pe")}, never)


def test_grid_engine_with_another_total_contradicts_itself(tmp_path: Path) -> None:
    (tmp_path / "pe").write_text("n1 4 q <NULL>\n")
    with pytest.raises(OptionError, match=r"NSLOTS .*PE_HOSTFILE names has 4 slots"):
        allocation({"PE_HOSTFILE": str(tmp_path / "pe"), "NSLOTS": "5"}, never)


granted = st.lists(
    st.tuples(st.from_regex(r"[a-c]{1,2}[0-9]{1,3}", fullmatch=True), st.integers(1, 200)),
    min_size=1,
    max_size=20,
    unique_by=lambda pair: pair[0],
)


def slurm_counts(counts: list[int]) -> str:
    """Write numbers as Slurm does, equal neighbours as ``4(x2)``."""
    from itertools import groupby

    runs = [(count, len(list(same))) for count, same in groupby(counts)]
    return ",".join(f"{count}(x{times})" if times > 1 else str(count) for count, times in runs)


@given(granted)
def test_what_slurm_would_write_is_read_again(pairs: list[tuple[str, int]]) -> None:
    names, counts = [name for name, _ in pairs], [count for _, count in pairs]
    environ = {
        "SLURM_JOB_NODELIST": compress(names),
        "SLURM_TASKS_PER_NODE": slurm_counts(counts),
    }
    assert read(environ).hosts == tuple(Host(*pair) for pair in pairs)


@given(granted)
def test_what_flux_would_write_is_read_again(pairs: list[tuple[str, int]]) -> None:
    parts = [
        {"rank": str(rank), "children": {"core": f"0-{cores - 1}" if cores > 1 else "0"}}
        for rank, (_, cores) in enumerate(pairs)
    ]
    hosts = {"R_lite": parts[::-1], "nodelist": [compress(name for name, _ in pairs)]}
    answer = json.dumps({"version": 1, "execution": hosts})
    found = allocation({"FLUX_URI": "x"}, lambda _: answer)
    assert found is not None
    assert found.hosts == tuple(Host(*pair) for pair in pairs)


@given(granted)
def test_what_lsf_would_write_is_read_again(pairs: list[tuple[str, int]]) -> None:
    environ = {"LSB_MCPU_HOSTS": " ".join(f"{name} {slots}" for name, slots in pairs)}
    assert read(environ).hosts == tuple(Host(*pair) for pair in pairs)
