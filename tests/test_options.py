"""Options have an effect, wherever they come from; wrong ones are refused with a hint."""

from __future__ import annotations

import json
import os
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from dtm.errors import OptionError
from dtm.options import Options
from tests.launch import PROGRAMS, Completed, environment, find_mpirun, mpi_prefix, run

PROGRAM = PROGRAMS / "options.py"
without_mpi = pytest.mark.skipif(find_mpirun() is None, reason="there is no mpirun")


def run_with(
    given: dict[str, Any], expected: int, *prefix: str, env: dict[str, str] | None = None
) -> Completed:
    path = f"{PROGRAMS}{os.pathsep}{environment()['PYTHONPATH']}"
    command = [*prefix, sys.executable, str(PROGRAM), str(expected), json.dumps(given)]
    return run(command, environment({"PYTHONPATH": path, **(env or {})}), 60)


def outcome(
    given: dict[str, Any], expected: int, *prefix: str, env: dict[str, str] | None = None
) -> dict[str, Any]:
    done = run_with(given, expected, *prefix, env=env)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# Names and values.


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("comunicationManager", "communicationManager"),
        ("communication_manager", "communicationManager"),
        ("worker", "workers"),
        ("Seed", "seed"),
        ("printsummary", "printSummary"),
        ("loadbalancer", "loadBalancer"),
        ("setTraceMod", "setTraceMode"),
    ],
)
def test_an_unknown_option_names_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"did you mean {meant!r}?")):
        Options().update({name: 1})


def test_an_option_that_resembles_none_lists_them() -> None:
    with pytest.raises(OptionError, match=r"there are .*workers"):
        Options().update({"zzz": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 0), ("workers", "3"), ("workers", 2.5), ("workers", True),
        ("mapChunkSize", -1), ("mapChunkSize", None), ("taskGranularity", -1.0),
        ("taskGranularity", "fast"), ("taskGranularity", float("nan")), ("seed", "x"),
        ("seed", 1.5), ("communicationManager", "mpy"), ("loadBalancer", "best"),
        ("printSummary", "yes"), ("printSummary", None), ("workersReturn", 2),
        ("workersReturn", []), ("setTraceMode", "off"), ("traceDir", 3), ("traceDir", ""),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_by_name(name: str, value: object) -> None:
    options = Options()
    with pytest.raises(OptionError, match=name):
        options.update({"printSummary": True, name: value})
    assert vars(options) == vars(Options()), "nothing is set if anything is wrong"


def test_flags_and_paths_come_out_as_what_they_mean() -> None:
    options = Options(printSummary=1, workersReturn=False, traceDir=Path("traces"))
    assert options.printSummary is True
    assert options.workersReturn is False
    assert options.traceDir == "traces"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("deap.dtm.commManagerMpi4py", "mpi"),
        ("deap.dtm.commManagerTCP", "tcp"),
        ("multiprocessing", "local"),
    ],
)
def test_old_values_are_understood(old: str, new: str) -> None:
    options = Options()
    options.update({"communicationManager": old, "loadBalancer": "deap.dtm.loadBalancerPDB"})
    assert options.communicationManager == new
    assert options.loadBalancer is None


@pytest.mark.parametrize("name", ["DTM_WORKERS", "DTM_SEED"])
def test_a_variable_that_is_no_number_is_refused_by_name(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        Options().overridden({name: "many"})


def test_an_empty_variable_says_nothing() -> None:
    assert Options(workers=3).overridden({"DTM_WORKERS": ""}).workers == 3


# Effects, in runs.


def test_workers_are_as_many_as_the_program_says() -> None:
    assert outcome({"workers": 3}, 3)["workers"] == [0, 1, 2]
    assert outcome({"workers": 1}, 1)["workers"] == [0]


def test_the_environment_goes_before_the_program() -> None:
    assert outcome({"workers": 1}, 3, env={"DTM_WORKERS": "3"})["workers"] == [0, 1, 2]
    given = {"workers": 3, "communicationManager": "local"}
    assert outcome(given, 1, env={"DTM_COMM": "serial"})["workers"] == [0]


@pytest.mark.parametrize("manager", ["local", "multiprocessing"])
def test_local_by_name(manager: str) -> None:
    found = outcome({"communicationManager": manager, "workers": 2}, 2)
    assert found["workers"] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["<class>", "<object>", "options.Mine", "serial"])
def test_a_manager_may_be_an_object_a_class_or_an_import_path(manager: str) -> None:
    assert outcome({"communicationManager": manager}, 1)["workers"] == [0]


@pytest.mark.slow
@without_mpi
@pytest.mark.parametrize("manager", ["mpi", "deap.dtm.commManagerMpi4py", None])
def test_mpi_by_name_and_by_itself(manager: str | None) -> None:
    given = {} if manager is None else {"communicationManager": manager}
    assert outcome(given, 3, *mpi_prefix(3))["workers"] == [0, 1, 2]


@without_mpi
def test_mpi_without_a_launcher_is_a_run_of_one() -> None:
    assert outcome({"communicationManager": "mpi"}, 1)["workers"] == [0]


@pytest.mark.parametrize("value", ["nowhere.Manager", "os.nothing", "builtins.dict"])
def test_a_manager_that_is_none_is_an_error(value: str) -> None:
    done = run_with({"communicationManager": value}, 1)
    assert done.returncode == 3, done.stderr
    assert "communicationManager" in json.loads(done.stdout)["error"]
    assert value in json.loads(done.stdout)["error"].replace("<class 'dict'>", "builtins.dict")


@pytest.mark.parametrize("value", ["<policy>", "options.Policy", "deap.dtm.loadBalancerPDB"])
def test_a_load_balancer_of_the_users(value: str) -> None:
    found = outcome({"loadBalancer": value, "workers": 2}, 2)
    assert found["workers"] == [0, 1]
    assert found["policy"] == ("olicy" in value)


def test_the_summary_tells_what_each_worker_did() -> None:
    done = run_with({"printSummary": True, "workers": 3}, 3)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stderr.splitlines()]
    names, *rows = lines[lines.index([]) + 1 : -3]
    assert [row[0] for row in rows] == ["0", "1", "2", "all"], done.stderr
    items, won = names.index("items"), names.index("won")
    for row in rows[:-1]:
        assert int(row[items]) > 0, done.stderr
    assert int(rows[-1][won - 1]) > 0, done.stderr  # that row names no host
    assert run_with({"workers": 3}, 3).stderr == ""


def test_work_below_the_granularity_stays() -> None:
    assert outcome({"taskGranularity": 1000.0, "workers": 2}, 1)["workers"] == [0]


def test_items_travel_in_chunks_of_the_given_size() -> None:
    ran = outcome({"mapChunkSize": 30, "workers": 2}, 2)["ran"]
    assert min(len(list(same)) for _, same in groupby(ran)) >= 30, ran


def test_a_run_is_traced_where_its_options_say(tmp_path: Path) -> None:
    given = {"setTraceMode": True, "traceDir": str(tmp_path / "trace"), "workers": 2}
    assert outcome(given, 2)["workers"] == [0, 1]
    assert len(list((tmp_path / "trace").iterdir())) == 2
